"""How much each place of a picture attends to one vector of a prompt's embedding, layer by layer.

What Stable Diffusion's U-Net has as `attn2`: queries from the picture, keys from the embedding, a softmax over the
embedding's vectors. The U-Net runs as far as the last layer that is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.features.diffusion.core import run_until
from propagate.features.diffusion.taps import tapped
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion
from propagate.features.stable_diffusion.pipeline_files import PipelineFiles

# vectors of an embedding: CLIP's length of a text
TOKENS = 77
# the one that is looked at: the first behind the start of the text (LDM_correspondences; diff-zvos too)
TOKEN = 1


class AttentionNetwork:
    """A Stable Diffusion whose cross-attention is looked at; its weights stay as they are.

    Args:
        files: the pipeline; it needs no text encoder.
        layers: (up block, layer) each: whose cross-attention is looked at.
        dtype, device: of weights and computation.
        checkpointing: for gradients, activations are computed once more instead of being kept.

    Attributes:
        factor: pixels per latent.
        channels: of latents.
        layers: (up block, layer), in the U-Net's order.
        width: of a vector of an embedding.

    Raises:
        UsageError: there is no such block or layer, or it has no cross-attention.
        WeightsError: see `LatentDiffusion`.
    """

    def __init__(
        self,
        files: PipelineFiles,
        layers: Sequence[tuple[int, int]],
        *,
        dtype: torch.dtype,
        device: torch.device,
        checkpointing: bool = True,
    ) -> None:
        self.width = int(files.unet.config.get("cross_attention_dim") or 0)
        self._alphas_cumprod = files.alphas_cumprod.tolist()
        self.channels = int(files.unet.config["in_channels"])
        self.layers = sorted(layers)
        self._model = LatentDiffusion(
            unet=files.unet,
            vae=files.vae,
            condition=torch.empty(1, 0, self.width),  # every pass brings its own
            up_ft_index=self.layers[-1][0],
            dtype=dtype,
            device=device,
        )
        self.factor = self._model.factor
        self._transformers = [_transformer(self._model.decoder[block], block, layer) for block, layer in self.layers]
        self._recorders = [AttentionRecorder() for _ in self.layers]
        for transformer, recorder in zip(self._transformers, self._recorders, strict=True):
            transformer.transformer_blocks[0].attn2.set_processor(recorder)
        if checkpointing:
            self._model.checkpoint_gradients()

    @torch.no_grad()
    def latents(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
        """Clean, scaled latents of pictures in [0, 1]; both sides multiples of `factor`."""
        latents: Tensor = self._model.latents(pictures)
        return latents

    def noised(
        self, latents: Float[Tensor, "b c y x"], noise: Float[Tensor, "_ c y x"], timestep: int
    ) -> Float[Tensor, "b c y x"]:
        """The latents as they are at a timestep."""
        kept = self._alphas_cumprod[timestep]
        noisy: Tensor = kept**0.5 * latents + (1 - kept) ** 0.5 * noise.to(latents)
        return noisy

    def maps(
        self, noisy: Float[Tensor, "b c y x"], timestep: int, embeddings: Float[Tensor, "_ n d"]
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """The share of each cell's attention that the second vector of the embedding gets.

        Of the heads the second half, as published: the reference takes the first for those of an unconditional pass,
        which it does not make. Gradients reach the embeddings where they are wanted.

        Args:
            noisy: latents at the timestep.
            timestep: what the U-Net is told.
            embeddings: of each of the latents, or one for all.

        Returns:
            Per layer, in the U-Net's order, float32 in [0, 1] on the layer's own grid.
        """
        sizes: list[tuple[int, int]] = []
        for recorder in self._recorders:
            recorder.wanted = True

        def note_size(_number: int, output: Tensor) -> None:
            sizes.append((output.shape[-2], output.shape[-1]))

        last = self._transformers[-1]
        with tapped(self._transformers[:-1], note_size):
            output = run_until(last, lambda: self._model.output(noisy, timestep, embeddings))
        note_size(len(sizes), output)
        return [recorder.take(len(noisy), size).float() for recorder, size in zip(self._recorders, sizes, strict=True)]


class AttentionRecorder:
    """Does what diffusers' own processor of an attention does, and keeps the attention where it is wanted.

    Attributes:
        wanted: the attention of the next pass is kept, until it is taken. Not that of every pass: checkpointing makes
            a second one for the gradients, after which it would stay in memory.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._attention: Tensor | None = None

    def __call__(
        self,
        attention: Any,
        hidden_states: Float[Tensor, "b q d"],
        encoder_hidden_states: Float[Tensor, "b n e"],
        attention_mask: Tensor | None = None,
    ) -> Float[Tensor, "b q d"]:
        """The attention's output.

        Args:
            attention: diffusers' module, with its projections.
            hidden_states: of the picture.
            encoder_hidden_states: of the prompt.
            attention_mask: none in Stable Diffusion.
        """
        query, key, value = (
            attention.head_to_batch_dim(project(states))
            for project, states in (
                (attention.to_q, hidden_states),
                (attention.to_k, encoder_hidden_states),
                (attention.to_v, encoder_hidden_states),
            )
        )
        shares = attention.get_attention_scores(query, key, attention_mask)
        if self.wanted:
            self._attention, self.wanted = shares, False
        output: Tensor = attention.to_out[0](attention.batch_to_head_dim(torch.bmm(shares, value)))
        return output

    def take(self, batch: int, size: tuple[int, int]) -> Float[Tensor, "b heads y x"]:
        """What the second half of the heads gave the second vector, on the layer's grid; it is then forgotten."""
        assert self._attention is not None
        shares = self._attention
        self._attention = None
        heads = shares.view(batch, -1, *size, shares.shape[-1])[..., TOKEN]
        return heads[:, heads.shape[1] // 2 :]


def _transformer(up_block: Any, block: int, layer: int) -> Any:
    attentions = list(getattr(up_block, "attentions", ()))
    if layer >= len(attentions):
        has = f"It has layers 0 to {len(attentions) - 1}." if attentions else "It has none at all."
        raise UsageError(f"features.layers: up block {block} has no cross-attention in layer {layer}.", has)
    return attentions[layer]
