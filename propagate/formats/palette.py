"""The colors of object ids."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray


def _voc_color_map() -> UInt8[ndarray, "256 3"]:
    """Return the color map of PASCAL VOC's devkit (VOCcolormap.m) and of DAVIS.

    Bits 0, 1, 2 of the id set the highest bit of red, green and blue, bits 3 to 5 the next one, bits 6 and 7 the third.
    """
    ids = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        channel, level = bit % 3, 7 - bit // 3
        colors[:, channel] |= (((ids >> bit) & 1) << level).astype(np.uint8)
    colors.setflags(write=False)
    return colors


def _bright_color_map() -> UInt8[ndarray, "256 3"]:
    """Return 256 different colors of the same hues, light enough to be visible over a picture.

    A gamma of 0.45 brightens dark colors such as (128, 0, 0), which would vanish over shadows, and a sixth of white
    keeps pure blue from looking black.
    """
    lifted = 255 * (DAVIS_PALETTE / 255.0) ** 0.45
    colors = np.round(lifted * (5 / 6) + 255 / 6).astype(np.uint8)
    colors.setflags(write=False)
    return colors


DAVIS_PALETTE: UInt8[ndarray, "256 3"] = _voc_color_map()
"""(256, 3) uint8 RGB, read-only: 1 = (128, 0, 0), 2 = (0, 128, 0), 3 = (128, 128, 0), 4 = (0, 0, 128), ..."""

BRIGHT_PALETTE: UInt8[ndarray, "256 3"] = _bright_color_map()
"""(256, 3) uint8 RGB, read-only, for overlays."""
