"""What the codec tests share: a black frame, and masks of a few rectangles."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from propagate.types import Frame, Mask


def black_frame(height: int, width: int) -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), 7, 0.28)


@st.composite
def masks_of_rectangles(draw, void=False) -> Mask:
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    picture = np.zeros((height, width), np.uint8)
    objects = draw(st.lists(st.integers(1, 254), min_size=1, max_size=4, unique=True))
    for object_id in [*objects, 255] if void else objects:
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
        picture[top:bottom, left:right] = object_id
    return Mask(picture)
