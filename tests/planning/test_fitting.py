from __future__ import annotations

import pytest

from propagate.errors import InputError, UsageError
from propagate.planning.fitting import check_fit
from propagate.settings import load_settings


class Sizes:
    """An extractor of which only the sizes count."""

    channels = 1

    def __init__(self, stride: int, multiple: int) -> None:
        self.stride, self.multiple = stride, multiple

    def __call__(self, images, indices=None):
        raise AssertionError("nothing is to be looked at")


def check(size=(480, 854), *, stride=8, multiple=32, masks=True, **assignments) -> None:
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in assignments.items()]
    check_fit(size, Sizes(stride, multiple), load_settings("rgb", overrides), masks=masks)


@pytest.mark.parametrize("short_side", [32, 33, 480, "null"])
def test_what_fits(short_side):
    check(video__short_side=short_side)


def test_a_short_side_below_the_multiple():
    with pytest.raises(UsageError, match=r"video\.short_side = 31: the features need at least 32 pixels") as caught:
        check(video__short_side=31)
    assert caught.value.remedy == "Set it to 32 or more."


def test_a_short_side_below_one_cell():
    with pytest.raises(UsageError, match=r"at least 64 pixels"):
        check(stride=64, multiple=8, video__short_side=63)
    check(stride=64, multiple=8, video__short_side=64)


def test_frames_at_their_own_size_that_are_too_small():
    with pytest.raises(InputError, match=r"The frames are 100x31, and the features need at least 32 pixels a side"):
        check((31, 100), video__short_side="null")
    check((31, 100), video__short_side=32)  # enlarged
    check((32, 100), video__short_side="null")


def test_the_dift_codec_needs_whole_cells():
    # 480x854 with multiples of 8 is 480x848, and 848 is no multiple of 32
    with pytest.raises(UsageError, match=r"labels\.masks\.codec = dift: the frames are resized to 848x480.*32"):
        check(stride=32, multiple=8, labels__masks__codec="dift")
    check(stride=32, multiple=32, labels__masks__codec="dift")
    check(stride=32, multiple=8)  # our own codec needs none
    check(stride=32, multiple=8, labels__masks__codec="dift", masks=False)


def test_a_window_that_reaches_nothing():
    circle = {"propagation__window": "circle", "propagation__radius": 0}
    with pytest.raises(UsageError, match=r"propagation\.radius = 0: with window = circle.*in cells of 8 pixels"):
        check(**circle)
    check(**circle, propagation__exempt_anchors="true")  # the anchors are reached
    check(propagation__window="circle", propagation__radius=0.5)  # the cell itself
    check(propagation__window="square", propagation__radius=0)


def test_a_finer_grid_needs_features_that_have_one():
    with pytest.raises(
        UsageError, match=r"propagation\.finer: the features have no map that is finer than .* 8 pixels"
    ):
        check(propagation__finer="true")
