"""`dift_adm`: DIFT with guided-diffusion's U-Net, on pixels.

The picture in [-1, 1] is noised to timestep t with the linear schedule, and one output block's activation is taken,
with its attention and upsampling, averaged over the noise draws (Tang et al. 2023, DIFT_adm; the network is Dhariwal
and Nichol's ADM, 2021). No latents, no prompt.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from propagate.features.adm.checkpoint import open_checkpoint
from propagate.features.device import compile_blocks, resolve_device
from propagate.features.diffusion.core import Noise, NoiseMode, draws_at_once, ensemble_features, linear_alphas_cumprod
from propagate.features.extractor import Features, Images, Indices, check_sides
from propagate.features.finer import Block, WithFiner, check_blocks, tap_outputs
from propagate.features.networks.loading import assign
from propagate.features.options import Count, Dtype, EnsembleSize, Index, Seed, Weights
from propagate.weights.locating import Wanted, located


class AdmDiffusion(WithFiner):
    """DIFT features of a guided-diffusion model.

    Args:
        weights: a guided-diffusion checkpoint (.pt, .safetensors), a folder of `propagate models convert-adm`, or a hub
            repository with such a folder; None: the published 256 x 256 unconditional model.
        timestep: 0 .. 999.
        up_ft_index: output block that is tapped; 0 .. 17 for the published model. 7 is stride 8.
        finer_ft_index: a later output block of smaller cells for `propagation.finer`; of the published model 8 to 10
            are stride 4. None: no finer map.
        head_channels: channels of an attention head, which the weights do not show; None: 64, as in the published
            unconditional models, or the number in a converted folder.

    See `propagate.features.options` for the other options.
    """

    @staticmethod
    def wanted_weights(*, weights: Weights = None, **_: Any) -> tuple[Wanted, ...]:
        """Return the weights that these options need."""
        return (Wanted("adm-256", weights),)

    def __init__(
        self,
        *,
        weights: Weights = None,
        timestep: Annotated[int, Field(ge=0, le=999)] = 51,
        up_ft_index: Index = 7,
        finer_ft_index: Index | None = None,
        ensemble_size: EnsembleSize = 4,
        seed: Seed = 0,
        dtype: Dtype = "float32",
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
        self.unet, tensors = open_checkpoint(located(*self.wanted_weights(weights=weights)), head_channels)
        blocks = output_blocks(self.unet)
        finer = check_blocks(blocks, up_ft_index, finer_ft_index)
        self.stride, self.channels = blocks[up_ft_index]
        self.multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.finer_stride: int | None = finer.stride if finer else None
        self.finer_channels = (finer or blocks[up_ft_index]).channels
        last = up_ft_index if finer_ft_index is None else finer_ft_index
        self._finer_tap = cut_after(self.unet, last)
        self._tap = output_module(self.unet, up_ft_index)
        assign(self.unet, tensors, self.dtype, self.device)
        if compile:
            compile_blocks(self.unet, self._tap, self._finer_tap)
        self._alpha_bar = float(linear_alphas_cumprod()[timestep])

    def _features(self, images: Images, indices: Indices, *, finer: bool) -> Features:
        check_sides(images, self.multiple)

        def activation(noisy: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d y x"]:
            pixels = noisy.to(self.dtype)
            return tap_outputs(self._tap, self._finer_tap if finer else None, lambda: self.unet(pixels, self.timestep))

        return ensemble_features(
            images.to(self.device) * 2 - 1,
            activation,
            noise=self.noise,
            alpha_bar=self._alpha_bar,
            indices=indices,
            draws_per_pass=self.draws_per_pass,
        )


def output_blocks(unet: UNet2DModel) -> list[Block]:
    """Return stride and channels of every output block, in guided-diffusion's numbering."""
    blocks = []
    for level, channels in reversed(list(enumerate(unet.config.block_out_channels))):
        for layer in range(unet.config.layers_per_block + 1):
            upsamples = level > 0 and layer == unet.config.layers_per_block
            blocks.append(Block(stride=2 ** (level - upsamples), channels=int(channels)))
    return blocks


def output_module(unet: UNet2DModel, index: int) -> nn.Module:
    """Return the module whose output is an output block's."""
    number, layer = divmod(index, unet.config.layers_per_block + 1)
    stage = unet.up_blocks[number]
    module: nn.Module
    if layer == unet.config.layers_per_block and stage.upsamplers is not None:
        module = stage.upsamplers[0]
    else:
        module = (stage.attentions if hasattr(stage, "attentions") else stage.resnets)[layer]
    return module


def cut_after(unet: UNet2DModel, index: int) -> nn.Module:
    """Drop all modules after an output block and return the module whose output is the block's."""
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
