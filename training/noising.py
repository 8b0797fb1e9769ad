"""Inputs of the compact model: rearranged pixels with noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from propagate.features.compact.compact import SPACE_TO_DEPTH


def rearranged(pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
    """Return space-to-depth pixels in [-1, 1], channels last in memory."""
    images = pixels.float() / 127.5 - 1
    return F.pixel_unshuffle(images, SPACE_TO_DEPTH).contiguous(memory_format=torch.channels_last)


def noise_like(clean: Float[Tensor, "b c y x"], generator: torch.Generator) -> Float[Tensor, "b c y x"]:
    """Return noise of the same shape. It is drawn on the CPU, so it is the same for all devices."""
    return torch.randn(clean.shape, generator=generator).to(clean)


def noised(
    clean: Float[Tensor, "b c y x"], noise: Float[Tensor, "b c y x"], kept: Float[Tensor, " b"]
) -> Float[Tensor, "b c y x"]:
    """Return the noisy sample at the timestep with this value of alphas_cumprod."""
    kept = kept.view(-1, 1, 1, 1)
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise
