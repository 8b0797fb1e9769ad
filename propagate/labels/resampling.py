"""Resampling between pictures and grids, one axis at a time: `rows @ map @ columns.T`.

With matrices, a map can be averaged exactly at any ratio of sizes, and a part of a picture can be upsampled alone with
the same numbers as in the whole.
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
    """Return the (cells, pixels) float32 share of each pixel in each cell. Rows sum to 1, at any ratio of the two."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    pixel = torch.arange(pixels, dtype=torch.float64)
    first, last = edges[:-1, None], edges[1:, None]
    overlap = (torch.minimum(last, pixel + 1) - torch.maximum(first, pixel)).clamp(min=0)
    return (overlap * cells / pixels).float()


@lru_cache(maxsize=8)
def interpolation_matrix(cells: int, pixels: int, mode: Upsampling) -> Float[Tensor, "pixels cells"]:
    """Return the (pixels, cells) float32 weights of the cells in each pixel. Cached: do not modify.

    They are torch's own (`align_corners=False`, bicubic with a = -0.75), from the response to one cell at a time.
    """
    unit_cells = torch.eye(cells)[None, None]
    return F.interpolate(unit_cells, size=(pixels, cells), mode=mode, align_corners=False)[0, 0]


def sample_nearest(ids: UInt8[ndarray, "h w"], size: tuple[int, int]) -> UInt8[ndarray, "y x"]:
    """Resize ids by Pillow's nearest neighbor: cell i has the id of pixel floor((i + 0.5) * pixels / cells)."""
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
