"""Between pictures and grids, one axis at a time: resampling is `rows @ map @ columns.T`.

Written as matrices, a map can be averaged exactly at any ratio of sizes, and a part of a picture can be up-sampled
alone with the very numbers it has in the whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

Upsampling = Literal["bicubic", "bilinear"]


def area_matrix(pixels: int, cells: int) -> Float[Tensor, "cells pixels"]:
    """(cells, pixels) float32: which share of a cell each pixel fills. Rows sum to 1, at any ratio of the two."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    pixel = torch.arange(pixels, dtype=torch.float64)
    first, last = edges[:-1, None], edges[1:, None]
    overlap = (torch.minimum(last, pixel + 1) - torch.maximum(first, pixel)).clamp(min=0)
    return (overlap * cells / pixels).float()


@lru_cache(maxsize=8)
def interpolation_matrix(cells: int, pixels: int, mode: Upsampling) -> Float[Tensor, "pixels cells"]:
    """(pixels, cells) float32: the weights with which each pixel reads the cells.

    These are torch's own (`align_corners=False`, the border cell repeated; bicubic with a = -0.75), taken from the
    response to one cell at a time. Kept between frames: do not write to it.
    """
    unit_cells = torch.eye(cells)[None, None]
    return F.interpolate(unit_cells, size=(pixels, cells), mode=mode, align_corners=False)[0, 0]


def sample_nearest(ids: UInt8[ndarray, "h w"], size: tuple[int, int]) -> UInt8[ndarray, "y x"]:
    """Ids at another size by Pillow's nearest neighbor: cell i takes pixel floor((i + 0.5) * pixels / cells)."""
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
