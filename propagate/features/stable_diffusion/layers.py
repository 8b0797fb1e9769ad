"""`sd_layers`: several layers of Stable Diffusion's decoder from one pass, each reduced by PCA.

The Stable Diffusion half of A Tale of Two Features (Zhang et al., NeurIPS 2023; PROTOCOLS: SD+DINO fusion), whose
preset is `sd_dino`. Differences, because the published code matches pairs of pictures: the basis of the PCA is fitted
on the anchor, and pictures keep their aspect ratio instead of being put on a black square, and are processed whole
unless `windows` is set. The implicit captioner, which needs another trained network, is left out: the condition is the
prompt alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from propagate.errors import UsageError
from propagate.features.anchoring import PrincipalComponents, fit_principal_components, no_anchor
from propagate.features.device import resolve_device
from propagate.features.diffusion.core import Noise, tapped
from propagate.features.extractor import FeatureExtractor, Features, Images, Indices, check_sides
from propagate.features.options import Count, Dtype, Index, Multiple, Seed, Timestep, Weights
from propagate.features.stable_diffusion.latent_diffusion import LatentExtractor
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.weights.locating import located

# (up block, layer) of the published s3, s4 and s5
PUBLISHED_LAYERS = ((2, 1), (1, 1), (0, 1))

Layer = tuple[Index, Index]


class StableDiffusionLayers(LatentExtractor):
    """Layers of Stable Diffusion 1 and 2, concatenated on the grid of the finest; the defaults are the published ones.

    With a PCA it must be anchored (see `propagate.features.anchoring`).

    Args:
        weights, revision, config: as in `dift_sd`; None: Stable Diffusion 1.5.
        timestep: how far the latents are noised; 0 .. 999.
        layers: (up block, layer) each: the output of the layer's attention, or of its resnet if it has none, before the
            block's upsampler. Stable Diffusion 1.5: [2, 1]: 640 channels at stride 16, [1, 1]: 1280 at 32, [0, 1]: 1280
            at 64, [3, 1]: 320 at 8.
        layer_weights: weight of each layer, after the PCA; None: 1.
        layer_pca: components of each layer, at most its channels; None: all channels. On a grid with fewer cells the
            other components are zero (64-pixel cells over 480x854 are 8x14 = 112, so 111 components).
        noise_side: the noise is drawn at noise_side x noise_side and resized to the latents, bicubically; None: it is
            drawn at their size.
        seed: seed of the noise, the same for every frame.
        windows: process the picture in windows of this many pixels a side, a multiple of 64; None: all at once. The
            published code has 512, on squares of 960.
        multiple: with windows a multiple of 64.

    See `propagate.features.options` for the other options.
    """

    def __init__(
        self,
        *,
        weights: Weights = None,
        revision: str | None = None,
        config: Path | None = None,
        timestep: Timestep = 100,
        layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = PUBLISHED_LAYERS,
        layer_weights: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] | None = None,
        layer_pca: Count | None = 256,
        prompt: str = "",
        noise_side: Annotated[int, Field(ge=1, le=4096)] | None = 64,
        seed: Seed = 42,
        windows: Annotated[int, Field(ge=64, le=8192, multiple_of=64)] | None = None,
        multiple: Multiple | None = None,
        dtype: Dtype = "float32",
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        files = open_pipeline(located(*self.wanted_weights(weights=weights, revision=revision)), config=config)
        self._alpha_bar = files.alpha_bar(timestep)
        blocks = len(files.unet.config.get("up_block_types", layers))
        if (last := max(layers)[0]) >= blocks:
            raise UsageError(f"features.layers: there is no up block {last}.", f"There are 0 to {blocks - 1}.")
        if layer_weights is not None and len(layer_weights) != len(layers):
            raise UsageError(
                f"features.layer_weights: {len(layer_weights)} weights for {len(layers)} layers.",
                "Give one for each layer.",
            )
        # the coarsest first, as the U-Net computes them
        order = sorted(range(len(layers)), key=lambda number: layers[number])
        self._layers = [layers[number] for number in order]
        self._weights = [1.0 if layer_weights is None else layer_weights[number] for number in order]
        self._build(
            files,
            self._layers[-1][0],
            prompt=prompt,
            multiple=multiple or (windows and 64),
            dtype=dtype,
        )
        if windows is not None and self.multiple % 64:
            raise UsageError(f"features.multiple = {multiple}: with windows it has to be one of 64.", "Leave it out.")
        self._taps = [_layer(self.model.decoder[block], block, layer) for block, layer in self._layers]
        channels = [self.model.blocks[block].channels for block, _ in self._layers]
        self._components = [min(layer_pca or own, own) for own in channels]
        doubled = [2 if self.model.decoder[block].upsamplers is not None else 1 for block, _ in self._layers]
        self._strides = [self.model.blocks[self._layers[n][0]].stride * factor for n, factor in enumerate(doubled)]
        self.channels, self.stride = sum(self._components), self._strides[-1]
        self.timestep, self.windows = timestep, windows
        self._noise, self._noise_side = Noise(seed=seed), noise_side
        self._needs_anchor = layer_pca is not None
        self._bases: list[PrincipalComponents] | None = None

    @torch.no_grad()
    def anchored(self, images: Images, indices: Indices = None) -> FeatureExtractor:
        """See `AnchoredExtractor`."""
        if not self._needs_anchor:
            return self
        fitted = copy.copy(self)
        layers = self.layers(images)
        fitted._bases = [fit_principal_components(*pair) for pair in zip(layers, self._components, strict=True)]
        return fitted

    @torch.no_grad()
    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FeatureExtractor`; channels from the finest layer to the coarsest, as published."""
        if self._needs_anchor and self._bases is None:
            raise no_anchor(self)
        layers = self.layers(images)
        if self._bases is not None:
            layers = [basis.project(layer) for basis, layer in zip(self._bases, layers, strict=True)]
        return stacked([layer * weight for layer, weight in zip(layers, self._weights, strict=True)])

    def layers(self, images: Images) -> list[Float[Tensor, "b _ _ _"]]:
        """Return each layer's own map, float32, the coarsest first; without PCA and weights."""
        check_sides(images, self.multiple)
        if self.windows is None:
            return self._pass(images)
        size, side = (images.shape[-2], images.shape[-1]), self.windows
        corners = window_corners(size, side)
        passes = [self._pass(images[..., y : y + side, x : x + side]) for y, x in corners]
        return [
            merge_windows(
                maps, [(y // stride, x // stride) for y, x in corners], (size[0] // stride, size[1] // stride)
            )
            for stride, *maps in zip(self._strides, *passes, strict=True)
        ]

    def _pass(self, images: Images) -> list[Tensor]:
        latents = self.model.latents(images)
        noise = self.noise((latents.shape[-2], latents.shape[-1]), latents.shape[1]).to(latents)
        found: list[Tensor] = []
        with tapped(self._taps, lambda _number, output: found.append(output.float())):
            self.model.activation(self._alpha_bar**0.5 * latents + (1 - self._alpha_bar) ** 0.5 * noise, self.timestep)
        return found

    def noise(self, size: tuple[int, int], channels: int = 4) -> Float[Tensor, "1 c h w"]:
        """Return the noise for latents of this size."""
        noise = self._noise.draw((channels, *(size if self._noise_side is None else [self._noise_side] * 2)))
        if noise.shape[-2:] == size:
            return noise
        return F.interpolate(noise, size, mode="bicubic", align_corners=False)


def stacked(layers: Sequence[Float[Tensor, "b _ _ _"]]) -> Features:
    """Join maps, the coarsest first, on the grid of the finest, whose channels come first.

    As published, each is resized bilinearly to the next finer grid together with those before it.
    """
    below, *finer = layers
    for layer in finer:
        if below.shape[-2:] != layer.shape[-2:]:
            below = F.interpolate(below, layer.shape[-2:], mode="bilinear", align_corners=False)
        below = torch.cat([layer, below], 1)
    return below


def window_corners(size: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """Return the corners (y, x) of windows of side x side pixels in a picture of (height, width), row by row.

    Windows stand side by side; the last of a row or column is moved back to the border. A picture smaller than a window
    has one, of its own size.
    """
    starts = [sorted({min(start, max(length - side, 0)) for start in range(0, length, side)}) for length in size]
    return [(y, x) for y in starts[0] for x in starts[1]]


def merge_windows(
    windows: Sequence[Float[Tensor, "b c h w"]], corners: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> Float[Tensor, "b c y x"]:
    """Merge the features of windows into a grid of (rows, columns), averaged where they overlap.

    `corners` are (row, column) of each window's first cell. The windows must cover the grid.
    """
    batch, channels = windows[0].shape[:2]
    total = windows[0].new_zeros(batch, channels, *grid)
    count = windows[0].new_zeros(grid)
    for window, (row, column) in zip(windows, corners, strict=True):
        place = (..., slice(row, row + window.shape[-2]), slice(column, column + window.shape[-1]))
        total[place] += window
        count[place] += 1
    return total / count


def _layer(up_block: Any, block: int, layer: int) -> nn.Module:
    resnets, attentions = list(up_block.resnets), list(getattr(up_block, "attentions", []))
    if layer >= len(resnets):
        raise UsageError(
            f"features.layers: up block {block} has no layer {layer}.", f"It has layers 0 to {len(resnets) - 1}."
        )
    found: nn.Module = (attentions or resnets)[layer]
    return found
