from __future__ import annotations

import numpy as np
import pytest

from propagate.benchmarks.comparison.contact_sheet import (
    DISPUTED,
    contact_sheet,
    difference,
    drawn,
    fitted,
    side_by_side,
)
from propagate.types import Keypoints, Mask

SIZE = (40, 60)
GREY = np.full((*SIZE, 3), 100, np.uint8)


def mask(columns: slice) -> Mask:
    ids = np.zeros(SIZE, np.uint8)
    ids[10:30, columns] = 2
    return Mask(ids)


@pytest.mark.parametrize(
    ("frame", "box", "expected"),
    [
        ((480, 854), (220, 244), (138, 244)),
        ((854, 480), (220, 244), (220, 124)),
        ((40, 60), (220, 244), (40, 60)),  # never enlarged
        ((1, 2000), (220, 244), (2, 244)),
    ],
)
def test_a_frame_in_a_box(frame, box, expected):
    assert fitted(frame, box) == expected


def test_a_mask_is_drawn_at_the_small_size():
    picture = drawn(GREY, mask(slice(0, 30)), (20, 30), names=False)
    assert picture.shape == (20, 30, 3)
    changed = (picture != 100).any(2)
    assert changed[5:15, :15].all()
    assert not changed[:, 15:].any()
    assert not changed[:5].any()


def test_keypoints_lie_where_they_were():
    keypoints = Keypoints(np.array([[39.5, 19.5]], np.float32), ("tip",))
    plain = drawn(GREY, keypoints, (20, 30), names=False)
    rows, columns = np.nonzero((plain != 100).any(2))
    assert (rows.mean(), columns.mean()) == pytest.approx((9.5, 19.5), abs=0.6)
    named = drawn(GREY, keypoints, (20, 30), names=True)
    assert (named != 100).any(2).sum() > (plain != 100).any(2).sum()


def test_only_disputed_pixels_are_orange():
    picture = difference(GREY, [mask(slice(0, 30)), mask(slice(0, 30)), mask(slice(20, 30))], SIZE)
    orange = (picture == DISPUTED).all(2)
    expected = np.zeros(SIZE, bool)
    expected[10:30, :20] = True
    np.testing.assert_array_equal(orange, expected)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2)])
def test_tiles_stand_side_by_side(count, columns, rows):
    tiles = {f"name {i}": np.full((*SIZE, 3), 10 * (i + 1), np.uint8) for i in range(count)}
    picture = side_by_side(tiles, "frame 0")
    band = picture.shape[0] // rows - SIZE[0]
    assert band > 10
    assert picture.shape == (rows * (SIZE[0] + band), columns * SIZE[1], 3)
    for number in range(count):
        top, left = number // columns * (SIZE[0] + band) + band, number % columns * SIZE[1]
        np.testing.assert_array_equal(picture[top : top + SIZE[0], left : left + SIZE[1]], 10 * (number + 1))
        assert picture[top - band : top, left : left + SIZE[1]].max() > 150  # its name


def test_a_long_name_stays_in_its_tile():
    tiles = {name: np.zeros((*SIZE, 3), np.uint8) for name in ("a" * 200, "b")}
    plain = {"a": tiles["b"], "b": tiles["b"]}
    long, short = side_by_side(tiles, "0"), side_by_side(plain, "0")
    assert long.shape == short.shape
    np.testing.assert_array_equal(long[:, SIZE[1] :], short[:, SIZE[1] :])


def test_a_sheet_holds_every_picture_and_leaves_none_over_another():
    rows = {
        "first": [np.full((*SIZE, 3), value, np.uint8) for value in (1, 2)],
        "second": [np.full((*SIZE, 3), value, np.uint8) for value in (3, 4)],
    }
    sheet = contact_sheet("a title", ["one", "two"], rows, {"first": ["a line", "and another"] * 3}, ["below"])
    for value in (1, 2, 3, 4):
        found = (sheet == value).all(2)
        assert found.sum() == SIZE[0] * SIZE[1]
        ys, xs = np.nonzero(found)
        assert (np.ptp(ys) + 1, np.ptp(xs) + 1) == SIZE
