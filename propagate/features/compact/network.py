"""The compact model's U-Net for a fixed timestep, up to the tapped block.

With the timestep fixed, each block's scale and shift are constants, folded into the affine weights of the normalization
before them. Nearest upsampling and the 3x3 convolution after it become one transposed 4x4 convolution with 4/9 of the
multiplications; with 2x2 averaging after them, one 3x3 convolution with a quarter. Only the rounding changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn


class CompactNetwork(nn.Module):
    """Computes an up block's output, and layers before it in the decoder, from noised space-to-depth pixels.

    The U-Net has no attention and `scale_shift` time conditioning; its weights are copied.

    Attributes:
        layers: channels of the layers that a call can return, by their names in diffusers, in the order of computation:
            residual blocks of the decoder ("up_blocks.1.resnets.0") and each block's own output ("up_blocks.1").
    """

    def __init__(self, unet: UNet2DModel, timestep: int, block: int) -> None:
        super().__init__()
        embedding = unet.time_embedding(unet.time_proj(torch.tensor([timestep])))
        self.start = unet.conv_in
        self.down = nn.ModuleList(
            layer
            for stage in unet.down_blocks
            for layer in (
                *(_Residual(resnet, embedding) for resnet in stage.resnets),
                *_convolutions(stage.downsamplers),
            )
        )
        self.middle = nn.Sequential(*(_Residual(resnet, embedding) for resnet in unet.mid_block.resnets))
        stages = unet.up_blocks[: block + 1]
        up: list[nn.Module] = []
        self.layers: dict[str, int] = {}
        for number, stage in enumerate(stages):
            for place, resnet in enumerate(stage.resnets):
                up.append(_Residual(resnet, embedding))
                self.layers[f"up_blocks.{number}.resnets.{place}"] = int(resnet.out_channels)
            if number < block:
                up += [upsampling(convolution) for convolution in _convolutions(stage.upsamplers)]
            self.layers[f"up_blocks.{number}"] = int(stage.resnets[-1].out_channels)
        self.up = nn.ModuleList(up)
        ending = _convolutions(stages[-1].upsamplers)
        self.whole = upsampling(ending[0]) if ending else nn.Identity()
        self.averaged = averaged_upsampling(ending[0]) if ending else nn.AvgPool2d(2)

    def forward(
        self, noisy: Float[Tensor, "b c h w"], names: Sequence[str], *, averaged: bool
    ) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """Return the outputs of layers; with `averaged` the last block's output is averaged over 2 x 2 cells."""
        hidden: Tensor = self.start(noisy)
        skipped = [hidden]
        for layer in self.down:
            hidden = layer(hidden)
            skipped.append(hidden)
        hidden = self.middle(hidden)
        found: dict[str, Tensor] = {}
        ending = self.averaged if averaged else self.whole
        for name, layer in zip(self.layers, (*self.up, ending), strict=True):
            if isinstance(layer, _Residual):
                hidden = torch.cat([hidden, skipped.pop()], 1)
            hidden = layer(hidden)
            if name in names:
                found[name] = hidden
        return found


def _convolutions(samplers: nn.ModuleList | None) -> list[nn.Conv2d]:
    """Return the convolutions of a block's down- or upsamplers."""
    return [cast("nn.Conv2d", sampler.conv) for sampler in samplers or ()]


class _Residual(nn.Module):
    """A `ResnetBlock2D` whose time conditioning is a constant."""

    def __init__(self, resnet: ResnetBlock2D, embedding: Float[Tensor, "1 e"]) -> None:
        super().__init__()
        scale, shift = resnet.time_emb_proj(F.silu(embedding)).squeeze(0).chunk(2)
        self.first_norm, self.first = resnet.norm1, resnet.conv1
        norm: nn.GroupNorm = resnet.norm2
        self.second_norm = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps)
        self.second_norm.weight = nn.Parameter(norm.weight * (1 + scale))
        self.second_norm.bias = nn.Parameter(norm.bias * (1 + scale) + shift)
        self.second = resnet.conv2
        self.shortcut = resnet.conv_shortcut or nn.Identity()

    def forward(self, hidden: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        inner: Tensor = self.first(F.silu(self.first_norm(hidden), inplace=True))
        inner = self.second(F.silu(self.second_norm(inner), inplace=True))
        inner += self.shortcut(hidden)
        return inner


def upsampling(convolution: nn.Conv2d) -> nn.ConvTranspose2d:
    """Return nearest 2x upsampling and a 3x3 convolution (zero padding) as one transposed convolution.

    Tap t of the 3x3 kernel at fine cell 2i + p reads fine cell 2i + p + t - 1, whose value is that of coarse cell
    (2i + p + t - 1) // 2: every tap of the transposed 4x4 kernel is a sum of those that meet there.
    """
    weight = convolution.weight.flip(2, 3).transpose(0, 1)
    kernel = torch.stack([F.pad(weight, (x, 1 - x, y, 1 - y)) for y in (0, 1) for x in (0, 1)]).sum(0)
    widened = nn.ConvTranspose2d(convolution.in_channels, convolution.out_channels, 4, stride=2, padding=1)
    widened.weight, widened.bias = nn.Parameter(kernel), convolution.bias
    return widened


def averaged_upsampling(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return nearest 2x upsampling, a 3x3 convolution (zero padding) and 2x2 averaging as one 3x3 convolution.

    Along one axis the even fine cell reads coarse cells (-1, 0, 0) with the kernel's three taps and the odd one
    (0, 0, 1); their mean weighs cell -1 by w0/2, cell 0 by (w0 + 2 w1 + w2)/2 and cell 1 by w2/2.
    """
    weight = convolution.weight
    fold = weight.new_tensor([[0.5, 0.0, 0.0], [0.5, 1.0, 0.5], [0.0, 0.0, 0.5]])
    folded = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    folded.weight = nn.Parameter(torch.einsum("yp,xq,oipq->oiyx", fold, fold, weight))
    folded.bias = convolution.bias
    return folded
