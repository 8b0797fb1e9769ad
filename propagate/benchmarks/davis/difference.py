"""Where a predicted mask and the truth differ, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.types import BACKGROUND, Mask

# Chosen so that the closest two, with full protanopia, deuteranopia or tritanopia (Machado et al., IEEE TVCG 2009),
# are still 29 units of CIE 1976 L*a*b* apart.
DIFFERENCE_COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"hit": (0, 120, 80), "missed": (240, 228, 66), "false alarm": (213, 94, 0), "wrong object": (86, 180, 233)}
)
"""What a color of `draw_difference` says -> RGB."""

_DARKER = 3  # the frame is only there for orientation
_WEIGHT = 0.8  # of the color over the darkened frame


def draw_difference(pixels: UInt8[ndarray, "h w 3"], truth: Mask, prediction: Mask) -> UInt8[ndarray, "h w 3"]:
    """Color the pixels where either mask has an object over the darkened frame, as `DIFFERENCE_COLORS` says.

    Args:
        pixels: (H, W, 3) uint8 RGB; is not changed.
        truth: (H, W); void has been made background.
        prediction: (H, W).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the sizes differ.
    """
    if not truth.size == prediction.size == pixels.shape[:2]:
        raise ValueError(f"sizes differ: pixels {pixels.shape[:2]}, truth {truth.size}, prediction {prediction.size}")
    there, found = truth.ids != BACKGROUND, prediction.ids != BACKGROUND
    same = truth.ids == prediction.ids
    places = {
        "hit": there & same,
        "missed": there & ~found,
        "false alarm": found & ~there,
        "wrong object": there & found & ~same,
    }
    dark = pixels // _DARKER
    drawn = dark.copy()
    for name, where in places.items():
        color = np.asarray(DIFFERENCE_COLORS[name], np.float32)
        drawn[where] = np.round(dark[where] * np.float32(1 - _WEIGHT) + color * np.float32(_WEIGHT)).astype(np.uint8)
    return drawn
