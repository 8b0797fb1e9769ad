"""`compact`: the diffusion model shipped in the wheel, small enough for a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from jaxtyping import Float, Int
from torch import Tensor

from propagate.features.diffusion import run_until

SPACE_TO_DEPTH = 4
TRAINING_TIMESTEP = 51
UNET_CONFIG: dict[str, Any] = {
    "in_channels": 3 * SPACE_TO_DEPTH**2,
    "out_channels": 3 * SPACE_TO_DEPTH**2,
    "block_out_channels": (64, 128, 192, 256),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D",) * 4,
    "up_block_types": ("UpBlock2D",) * 4,
    "norm_num_groups": 16,
    "resnet_time_scale_shift": "scale_shift",
    "add_attention": False,
}


def pooled_block(
    unet: UNet2DModel, block: int, noisy: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
) -> Float[Tensor, "b d h2 w2"]:
    """Up block `block`'s output after its upsampler, averaged over 2 x 2 cells, without computing the fine cells.

    Nearest upsampling, a 3x3 convolution and 2x2 averaging are linear, and together they are one 3x3 convolution on
    the coarse grid, at a quarter of the multiplications (`fold_upsampler`).
    """
    stage = unet.up_blocks[block]
    hidden = run_until(stage.resnets[-1], lambda: unet(noisy, timesteps))
    convolution = stage.upsamplers[0].conv
    return F.conv2d(hidden, fold_upsampler(convolution.weight), convolution.bias, padding=1)


def fold_upsampler(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 3 3"]:
    """The 3x3 kernel that equals nearest 2x upsampling, the given 3x3 kernel (zero padding) and 2x2 averaging.

    Along one axis the even fine cell reads coarse cells (-1, 0, 0) with the kernel's three taps and the odd one
    (0, 0, 1); their mean weighs cell -1 by w0/2, cell 0 by (w0 + 2 w1 + w2)/2 and cell 1 by w2/2.
    """
    fold = weight.new_tensor([[0.5, 0.0, 0.0], [0.5, 1.0, 0.5], [0.0, 0.0, 0.5]])
    return torch.einsum("yp,xq,oipq->oiyx", fold, fold, weight)
