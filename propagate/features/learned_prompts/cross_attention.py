"""The cross-attention of each cell of a picture to one vector of a prompt's embedding, layer by layer.

These are the `attn2` of Stable Diffusion's U-Net: queries from the picture, keys from the embedding, a softmax over the
embedding's vectors. The U-Net runs up to the last layer in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.features.diffusion.core import run_until, tapped
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion
from propagate.features.stable_diffusion.pipeline_files import PipelineFiles

TOKENS = 77  # vectors of an embedding: CLIP's text length
TOKEN = 1  # the vector whose attention is read, after the start of the text (LDM_correspondences; diff-zvos too)


class AttentionNetwork:
    """A Stable Diffusion with readable cross-attention in some layers (up block, layer); its weights do not change.

    With `checkpointing`, activations are recomputed for gradients instead of stored.

    Attributes:
        factor, channels: pixels per latent, channels of latents.
        layers: (up block, layer), in the U-Net's order.
        width: length of a vector of an embedding.
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
        self.model = LatentDiffusion(
            unet=files.unet,
            vae=files.vae,
            condition=torch.empty(1, 0, self.width),  # every pass has its own
            up_ft_index=self.layers[-1][0],
            dtype=dtype,
            device=device,
        )
        self.factor = self.model.factor
        self.transformers = [_transformer(self.model.decoder[block], block, layer) for block, layer in self.layers]
        self.recorders = [AttentionRecorder() for _ in self.layers]
        for transformer, recorder in zip(self.transformers, self.recorders, strict=True):
            transformer.transformer_blocks[0].attn2.set_processor(recorder)
        if checkpointing:
            self.model.checkpoint_gradients()

    @torch.no_grad()
    def latents(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
        """Return clean, scaled latents of pictures in [0, 1]; both sides must be multiples of `factor`."""
        latents: Tensor = self.model.latents(pictures)
        return latents

    def noised(
        self, latents: Float[Tensor, "b c y x"], noise: Float[Tensor, "_ c y x"], timestep: int
    ) -> Float[Tensor, "b c y x"]:
        """Add noise to latents for a timestep."""
        alpha_bar = self._alphas_cumprod[timestep]
        noisy: Tensor = alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise.to(latents)
        return noisy

    def maps(
        self, noisy: Float[Tensor, "b c y x"], timestep: int, embeddings: Float[Tensor, "_ n d"]
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Return each cell's attention to the second vector, per layer, float32 in [0, 1] on the layer's own grid.

        Only the second half of the heads is used, as published: the reference takes the first half for the heads of an
        unconditional pass, which it does not make. Gradients reach the embeddings (one for each of the latents, or one
        for all).
        """
        sizes: list[tuple[int, int]] = []
        for recorder in self.recorders:
            recorder.is_recording = True

        def add_size(_number: int, output: Tensor) -> None:
            sizes.append((output.shape[-2], output.shape[-1]))

        last = self.transformers[-1]
        with tapped(self.transformers[:-1], add_size):
            output = run_until(last, lambda: self.model.output(noisy, timestep, embeddings))
        add_size(len(sizes), output)
        return [recorder.take(len(noisy), size).float() for recorder, size in zip(self.recorders, sizes, strict=True)]


class AttentionRecorder:
    """An attention processor equal to diffusers' own that can record the attention of the next pass.

    Only the next one: checkpointing makes a second pass for the gradients, whose attention would stay in memory.
    """

    def __init__(self) -> None:
        self.is_recording = False
        self._attention: Tensor | None = None

    def __call__(
        self,
        attention: Any,
        hidden_states: Float[Tensor, "b q d"],
        encoder_hidden_states: Float[Tensor, "b n e"],
        attention_mask: Tensor | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Return the output of diffusers' attention module for states of the picture and of the prompt."""
        query, key, value = (
            attention.head_to_batch_dim(project(states))
            for project, states in (
                (attention.to_q, hidden_states),
                (attention.to_k, encoder_hidden_states),
                (attention.to_v, encoder_hidden_states),
            )
        )
        shares = attention.get_attention_scores(query, key, attention_mask)
        if self.is_recording:
            self._attention, self.is_recording = shares, False
        output: Tensor = attention.to_out[0](attention.batch_to_head_dim(torch.bmm(shares, value)))
        return output

    def take(self, batch: int, size: tuple[int, int]) -> Float[Tensor, "b heads y x"]:
        """Return and drop the recorded attention of the second half of the heads, on the layer's grid."""
        assert self._attention is not None
        shares = self._attention
        self._attention = None
        heads = shares.view(batch, -1, *size, shares.shape[-1])[..., TOKEN]
        return heads[:, heads.shape[1] // 2 :]


def _transformer(up_block: Any, block: int, layer: int) -> Any:
    attentions = list(getattr(up_block, "attentions", ()))
    if layer >= len(attentions):
        remedy = f"It has layers 0 to {len(attentions) - 1}." if attentions else "It has none at all."
        raise UsageError(f"features.layers: up block {block} has no cross-attention in layer {layer}.", remedy)
    return attentions[layer]
