"""`sd_layers`: several layers of Stable Diffusion's decoder from one pass, each reduced by PCA.

The Stable Diffusion half of A Tale of Two Features (Zhang et al., NeurIPS 2023; PROTOCOLS: SD+DINO fusion), whose
preset is `sd_dino`. It differs from the published one where that is made for pairs of pictures: the basis of the PCA is
fitted on the anchor (`propagate.features.pca`), pictures keep their aspect instead of being put on a black square, and
are looked at whole unless `windows` is set. The implicit captioner, which needs another trained network, is left out:
the condition is the prompt alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from propagate.errors import UsageError
from propagate.features.anchoring import no_anchor
from propagate.features.device import resolve_device
from propagate.features.diffusion.core import Noise
from propagate.features.diffusion.taps import tapped
from propagate.features.extractor import FeatureExtractor
from propagate.features.option_types import Count, Multiple, Seed
from propagate.features.pca import PrincipalComponents, fit_principal_components
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion, working_multiple
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.features.stable_diffusion.prompt_embedding import prompt_embedding
from propagate.features.stable_diffusion.windows import merge_windows, window_corners
from propagate.weights.locating import Wanted, located

MODEL = "stable-diffusion-1-5"
# (up block, layer) of the published s3, s4 and s5
PUBLISHED_LAYERS = ((2, 1), (1, 1), (0, 1))

Layer = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class StableDiffusionLayers:
    """Layers of Stable Diffusion 1 and 2, concatenated on the grid of the finest; the defaults are the published ones.

    With a PCA it has to be anchored (see `propagate.features.anchoring`).

    Args:
        weights, revision, config: as in `dift_sd`; None: Stable Diffusion 1.5, from wherever it can be had.
        timestep: how far the latents are noised; 0 .. 999.
        layers: (up block, layer) each: the output of the layer's attention, or of its resnet where it has none, before
            the block's upsampler. Stable Diffusion 1.5: [2, 1]: 640 channels at stride 16, [1, 1]: 1280 at 32,
            [0, 1]: 1280 at 64, [3, 1]: 320 at 8.
        layer_weights: of each layer, after the PCA; None: 1.
        layer_pca: components of each layer, at most its channels; None: all channels as they are. On a grid with fewer
            cells the rest are zero (64-pixel cells over 480x854 are 8x14 = 112, so 111 components).
        prompt: text condition.
        noise_side: the noise is drawn at noise_side x noise_side and resized to the latents, bicubically; None: it is
            drawn at their size.
        seed: of the noise, which is the same for every frame.
        windows: look at the picture in windows of this many pixels a side, a multiple of 64; None: all at once. The
            published code has 512, on squares of 960.
        multiple: as in `dift_sd`; with windows at least 64.
        dtype: "float32" or, where the device computes in it, "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UsageError: no such layer, timestep, multiple or size of windows, or not a weight per layer.
        WeightsError: the weights are missing, damaged or of another architecture.
    """

    @staticmethod
    def wanted_weights(
        *, weights: str | Path | None = None, revision: str | None = None, **_: Any
    ) -> tuple[Wanted, ...]:
        """The weights that these options need, in the order in which they are opened."""
        return (Wanted(MODEL, weights, revision),)

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        revision: str | None = None,
        config: Path | None = None,
        timestep: Annotated[int, Field(ge=0, le=9999)] = 100,
        layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = PUBLISHED_LAYERS,
        layer_weights: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] | None = None,
        layer_pca: Count | None = 256,
        prompt: str = "",
        noise_side: Annotated[int, Field(ge=1, le=4096)] | None = 64,
        seed: Seed = 42,
        windows: Annotated[int, Field(ge=64, le=8192, multiple_of=64)] | None = None,
        multiple: Multiple | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        files = open_pipeline(located(*self.wanted_weights(weights=weights, revision=revision)), config=config)
        if timestep >= len(files.alphas_cumprod):
            raise UsageError(
                f"features.timestep = {timestep}: the model's noise schedule has {len(files.alphas_cumprod)} steps.",
                f"Choose 0 to {len(files.alphas_cumprod) - 1}.",
            )
        blocks = len(files.unet.config.get("up_block_types", layers))
        if (last := max(layers)[0]) >= blocks:
            raise UsageError(f"features.layers: there is no up block {last}.", f"There are 0 to {blocks - 1}.")
        # the coarsest first, as the U-Net computes them
        order = sorted(range(len(layers)), key=lambda number: layers[number])
        self._layers = [layers[number] for number in order]
        self._weights = _weights_of(layers, layer_weights, order)
        self._model = LatentDiffusion(
            unet=files.unet,
            vae=files.vae,
            condition=prompt_embedding(prompt, files.text_encoder, files.unet.files),
            up_ft_index=self._layers[-1][0],
            dtype=getattr(torch, dtype),
            device=self.device,
        )
        self._taps = [_layer(self._model.decoder[block], block, layer) for block, layer in self._layers]
        self._components = [min(layer_pca or channels, channels) for channels in self._channels()]
        self.channels, self.stride = sum(self._components), self._strides()[-1]
        self.multiple = working_multiple(multiple or (windows and 64), self._model.factor)
        if windows is not None and self.multiple % 64:
            raise UsageError(f"features.multiple = {multiple}: with windows it has to be one of 64.", "Leave it out.")
        self.timestep, self.windows = timestep, windows
        self._noise, self._noise_side = Noise(seed=seed), noise_side
        self._kept = float(files.alphas_cumprod[timestep])
        self._needs_anchor = layer_pca is not None
        self._bases: list[PrincipalComponents] | None = None

    @torch.no_grad()
    def anchored(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None) -> FeatureExtractor:
        """See `AnchoredExtractor`."""
        if not self._needs_anchor:
            return self
        fitted = copy.copy(self)
        layers = self.layers(images)
        fitted._bases = [fit_principal_components(*pair) for pair in zip(layers, self._components, strict=True)]
        return fitted

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; channels from the finest layer to the coarsest, as published."""
        if self._needs_anchor and self._bases is None:
            raise no_anchor(self)
        layers = self.layers(images)
        if self._bases is not None:
            layers = [basis.project(layer) for basis, layer in zip(self._bases, layers, strict=True)]
        return stacked([layer * weight for layer, weight in zip(layers, self._weights, strict=True)])

    def layers(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c y x"]]:
        """Each layer's own map, float32, the coarsest first; without PCA and weights."""
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"sides must be multiples of {self.multiple}, not {tuple(images.shape[-2:])}")
        if self.windows is None:
            return self._pass(images)
        size, side = (images.shape[-2], images.shape[-1]), self.windows
        corners = window_corners(size, side)
        passes = [self._pass(images[..., y : y + side, x : x + side]) for y, x in corners]
        return [
            merge_windows(
                maps, [(y // stride, x // stride) for y, x in corners], (size[0] // stride, size[1] // stride)
            )
            for stride, *maps in zip(self._strides(), *passes, strict=True)
        ]

    def _pass(self, images: Tensor) -> list[Tensor]:
        latents = self._model.latents(images)
        noise = self.noise((latents.shape[-2], latents.shape[-1]), latents.shape[1]).to(latents)
        found: list[Tensor] = []
        with tapped(self._taps, lambda _number, output: found.append(output.float())):
            self._model.activation(self._kept**0.5 * latents + (1 - self._kept) ** 0.5 * noise, self.timestep)
        return found

    def noise(self, size: tuple[int, int], channels: int = 4) -> Float[Tensor, "1 c h w"]:
        """The noise for latents of this size."""
        if self._noise_side is None:
            return self._noise.draw((channels, *size))
        noise = self._noise.draw((channels, self._noise_side, self._noise_side))
        if noise.shape[-2:] == size:
            return noise
        return F.interpolate(noise, size, mode="bicubic", align_corners=False)

    def _channels(self) -> list[int]:
        return [self._model.blocks[block].channels for block, _ in self._layers]

    def _strides(self) -> list[int]:
        doubled = [2 if self._model.decoder[block].upsamplers is not None else 1 for block, _ in self._layers]
        return [
            self._model.blocks[block].stride * factor for (block, _), factor in zip(self._layers, doubled, strict=True)
        ]


def stacked(layers: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b c y x"]:
    """Maps, the coarsest first, on the grid of the finest, whose channels come first.

    As published, each is resized to the next finer grid together with those before it, bilinearly.
    """
    below, *finer = layers
    for layer in finer:
        if below.shape[-2:] != layer.shape[-2:]:
            below = F.interpolate(below, layer.shape[-2:], mode="bilinear", align_corners=False)
        below = torch.cat([layer, below], 1)
    return below


def _layer(up_block: Any, block: int, layer: int) -> nn.Module:
    resnets, attentions = list(up_block.resnets), list(getattr(up_block, "attentions", []))
    if layer >= len(resnets):
        raise UsageError(
            f"features.layers: up block {block} has no layer {layer}.", f"It has layers 0 to {len(resnets) - 1}."
        )
    found: nn.Module = (attentions or resnets)[layer]
    return found


def _weights_of(
    layers: Sequence[tuple[int, int]], weights: Sequence[float] | None, order: Sequence[int]
) -> list[float]:
    if weights is not None and len(weights) != len(layers):
        raise UsageError(
            f"features.layer_weights: {len(weights)} weights for {len(layers)} layers.", "Give one for each layer."
        )
    return [1.0 if weights is None else weights[number] for number in order]
