"""`dift_adm`: DIFT with guided-diffusion's U-Net, on pixels.

The picture in [-1, 1] is noised to timestep t with the linear schedule and one output block's activation is taken,
its attention and upsampling included, averaged over the draws of the noise (Tang et al. 2023, DIFT_adm; the network is
Dhariwal and Nichol's ADM, 2021). No latents, no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from propagate.errors import UsageError
from propagate.features.adm.checkpoint import open_checkpoint
from propagate.features.device import compile_blocks, resolve_device
from propagate.features.diffusion.core import (
    Noise,
    NoiseMode,
    draws_at_once,
    ensemble_features,
    linear_alphas_cumprod,
    run_until,
)
from propagate.features.finer import check_finer, run_until_finer
from propagate.features.networks.loading import assign
from propagate.features.option_types import Count, EnsembleSize, Seed
from propagate.weights.locating import Wanted, located


@dataclass(frozen=True)
class OutputBlock:
    """One of guided-diffusion's output blocks.

    Attributes:
        stride: pixels per cell of its output.
        channels: of its output.
    """

    stride: int
    channels: int


class AdmDiffusion:
    """DIFT features of a guided-diffusion model.

    Args:
        weights: a guided-diffusion checkpoint (.pt, .safetensors), a folder of `propagate models convert-adm`, or a hub
            repository with such a folder; None: the published 256 x 256 unconditional model, found or downloaded.
        timestep: 0 .. 999.
        up_ft_index: output block that is tapped; 0 .. 17 for the published model. 7 is stride 8.
        finer_ft_index: a later output block of smaller cells that is kept for `propagation.finer`, which needs it;
            of the published model 8 to 10 are stride 4. None: none.
        ensemble_size: draws of the noise whose features are averaged.
        seed: of the noise.
        dtype: "float32" or, where the device computes in it, "bfloat16" or "float16".
        noise: "shared", "fresh" or "antithetic", see `propagate.features.diffusion.core.Noise`.
        draws_per_pass: draws that go through the network together; None: all of them on a GPU, one on a CPU. The
            features do not depend on it beyond rounding.
        head_channels: channels of an attention head, the one thing that the weights do not tell; None: 64, as in the
            published unconditional models, or what a converted folder says.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        compile: the network is given to `torch.compile`, see `propagate.features.device.compile_blocks`.

    Raises:
        WeightsError: the weights are not there, damaged, or of another architecture.
        UsageError: no such block, none that is finer, or head_channels does not fit.
    """

    @staticmethod
    def wanted_weights(*, weights: str | Path | None = None, **_: Any) -> tuple[Wanted, ...]:
        """The weights that these options need."""
        return (Wanted("adm-256", weights),)

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        timestep: Annotated[int, Field(ge=0, le=999)] = 51,
        up_ft_index: Annotated[int, Field(ge=0)] = 7,
        finer_ft_index: Annotated[int, Field(ge=0)] | None = None,
        ensemble_size: EnsembleSize = 4,
        seed: Seed = 0,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        noise: NoiseMode = "shared",
        draws_per_pass: Count | None = None,
        head_channels: Count | None = None,
        device: str = "auto",
        compile: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = getattr(torch, dtype)
        self.timestep = timestep
        self.noise = Noise(ensemble_size, seed, noise)
        self.draws_per_pass = draws_at_once(draws_per_pass, ensemble_size, self.device)
        self._unet, tensors = open_checkpoint(located(*self.wanted_weights(weights=weights)), head_channels)
        blocks = output_blocks(self._unet)
        if up_ft_index >= len(blocks):
            raise UsageError(f"features.up_ft_index = {up_ft_index}: there is no such block.", _listed(blocks))
        self.stride, self.channels = blocks[up_ft_index].stride, blocks[up_ft_index].channels
        self.multiple = 2 ** (len(self._unet.config.block_out_channels) - 1)
        self.finer_stride = check_finer(up_ft_index, finer_ft_index, [block.stride for block in blocks])
        last = up_ft_index if finer_ft_index is None else finer_ft_index
        self.finer_channels = blocks[last].channels
        self._finer_tap = cut_after(self._unet, last)
        self._tap = output_module(self._unet, up_ft_index)
        assign(self._unet, tensors, self.dtype, self.device)
        if compile:
            compile_blocks(self._unet, self._tap, self._finer_tap)
        self._kept = float(linear_alphas_cumprod()[timestep])

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of `multiple` (32 for the published model)."""
        return self._ensemble(images, indices, self._activation)

    @torch.no_grad()
    def with_finer(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """See `FinerExtractor`; only with a `finer_ft_index`."""
        return self._ensemble(images, indices, self._both)

    def _ensemble(
        self,
        images: Float[Tensor, "b 3 h w"],
        indices: Sequence[int] | None,
        activation: Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n d y x"]],
    ) -> Float[Tensor, "b d y x"]:
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"sides must be multiples of {self.multiple}, not {tuple(images.shape[-2:])}")
        clean = images.to(self.device) * 2 - 1
        return ensemble_features(
            clean,
            activation,
            noise=self.noise,
            kept=self._kept,
            indices=indices,
            draws_per_pass=self.draws_per_pass,
        )

    def _activation(self, noisy: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d y x"]:
        return run_until(self._tap, lambda: self._unet(noisy.to(self.dtype), self.timestep))

    def _both(self, noisy: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e y x"]:
        return run_until_finer(self._tap, self._finer_tap, lambda: self._unet(noisy.to(self.dtype), self.timestep))


def output_blocks(unet: UNet2DModel) -> list[OutputBlock]:
    """Stride and channels of every output block, in guided-diffusion's numbering."""
    blocks = []
    for level, channels in reversed(list(enumerate(unet.config.block_out_channels))):
        for layer in range(unet.config.layers_per_block + 1):
            upsamples = level > 0 and layer == unet.config.layers_per_block
            blocks.append(OutputBlock(stride=2 ** (level - upsamples), channels=int(channels)))
    return blocks


def output_module(unet: UNet2DModel, index: int) -> nn.Module:
    """The module whose output is an output block's."""
    number, layer = divmod(index, unet.config.layers_per_block + 1)
    stage = unet.up_blocks[number]
    module: nn.Module
    if layer == unet.config.layers_per_block and stage.upsamplers is not None:
        module = stage.upsamplers[0]
    else:
        module = (stage.attentions if hasattr(stage, "attentions") else stage.resnets)[layer]
    return module


def cut_after(unet: UNet2DModel, index: int) -> nn.Module:
    """Drop everything that comes after an output block and return the module whose output is the block's."""
    number, layer = divmod(index, unet.config.layers_per_block + 1)
    stage = unet.up_blocks[number]
    unet.up_blocks = unet.up_blocks[: number + 1]
    unet.conv_norm_out = unet.conv_out = None
    if layer < unet.config.layers_per_block or stage.upsamplers is None:
        stage.upsamplers = None
        stage.resnets = stage.resnets[: layer + 1]
        if hasattr(stage, "attentions"):
            stage.attentions = stage.attentions[: layer + 1]
    return output_module(unet, index)


def _listed(blocks: list[OutputBlock]) -> str:
    return f"Blocks: {'; '.join(f'{i}: stride {b.stride}, {b.channels} channels' for i, b in enumerate(blocks))}."
