from __future__ import annotations

import numpy as np
import pytest

from propagate.formats import DAVIS_PALETTE
from propagate.formats.palette import BRIGHT_PALETTE


def test_the_published_colors() -> None:
    # PASCAL VOC's class colors, as its devkit lists them: background to bicycle, ..., tv monitor, void.
    published = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        5: (128, 0, 128),
        6: (0, 128, 128),
        7: (128, 128, 128),
        8: (64, 0, 0),
        9: (192, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {i: tuple(DAVIS_PALETTE[i].tolist()) for i in published} == published


@pytest.mark.parametrize("palette", [DAVIS_PALETTE, BRIGHT_PALETTE])
def test_every_id_has_a_color_of_its_own(palette: np.ndarray) -> None:
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == 256


def test_overlay_colors_are_lighter_and_keep_their_order() -> None:
    assert (BRIGHT_PALETTE >= DAVIS_PALETTE).all()
    assert BRIGHT_PALETTE[1:, :].max(1).min() >= 100
    for channel in range(3):
        order = np.argsort(DAVIS_PALETTE[:, channel], kind="stable")
        assert (np.diff(BRIGHT_PALETTE[order, channel].astype(int)) >= 0).all()


def test_nobody_can_change_them() -> None:
    with pytest.raises(ValueError, match="read-only"):
        DAVIS_PALETTE[0] = 1
