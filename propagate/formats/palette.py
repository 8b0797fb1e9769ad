"""The colors of object ids."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

DAVIS_PALETTE: UInt8[ndarray, "256 3"] = np.zeros((256, 3), np.uint8)
"""(256, 3) uint8 RGB, read-only: 1 = (128, 0, 0), 2 = (0, 128, 0), 3 = (128, 128, 0), 4 = (0, 0, 128), ...

The color map of PASCAL VOC's devkit (VOCcolormap.m) and of DAVIS: bits 0, 1, 2 of the id set the highest bit of red,
green and blue, bits 3 to 5 the next one, bits 6 and 7 the third.
"""
for _bit in range(8):
    DAVIS_PALETTE[:, _bit % 3] |= (((np.arange(256) >> _bit) & 1) << (7 - _bit // 3)).astype(np.uint8)
DAVIS_PALETTE.setflags(write=False)

BRIGHT_PALETTE: UInt8[ndarray, "256 3"] = np.round(255 * (DAVIS_PALETTE / 255.0) ** 0.45 * (5 / 6) + 255 / 6).astype(
    np.uint8
)
"""(256, 3) uint8 RGB, read-only, for overlays: 256 different colors of the same hues, visible over a picture.

A gamma of 0.45 brightens dark colors such as (128, 0, 0), which would vanish over shadows, and a sixth of white keeps
pure blue from looking black.
"""
BRIGHT_PALETTE.setflags(write=False)
