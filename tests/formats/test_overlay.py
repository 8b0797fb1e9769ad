from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from propagate.formats import draw_keypoints, draw_mask
from propagate.formats.palette import BRIGHT_PALETTE
from propagate.types import Keypoints, Mask


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


@settings(deadline=None, max_examples=25)
@given(
    ids=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.sampled_from([0, 1, 9, 255])
    ),
    seed=st.integers(0, 99),
)
def test_where_no_object_is_nothing_changes(ids: np.ndarray, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
    before = pixels.copy()
    drawn = draw_mask(pixels, Mask(ids))
    np.testing.assert_array_equal(pixels, before)
    outside = (ids == 0) | (ids == 255)
    np.testing.assert_array_equal(drawn[outside], pixels[outside])
    assert (drawn[~outside] != pixels[~outside]).any(-1).sum() >= 0.9 * (~outside).sum()


@pytest.mark.parametrize("number", [1, 4, 254])
@pytest.mark.parametrize("size", [(240, 320), (1080, 1920)])
def test_inside_is_the_tint_and_the_border_the_line(size: tuple[int, int], number: int) -> None:
    ids = np.zeros(size, np.uint8)
    ids[60:180, 60:200] = number
    drawn = draw_mask(gray(*size), Mask(ids), alpha=0.45).astype(int)
    color = BRIGHT_PALETTE[number].astype(int)
    np.testing.assert_allclose(drawn[120, 130], 0.55 * 100 + 0.45 * color, atol=1)
    for place in [(60, 100), (179, 100), (100, 60), (100, 199)]:
        np.testing.assert_allclose(drawn[place], 0.1 * 100 + 0.9 * color, atol=1)


def test_a_line_divides_two_objects_and_none_runs_along_the_frame() -> None:
    ids = np.ones((20, 20), np.uint8)
    ids[:, 10:] = 2
    drawn = draw_mask(gray(20, 20), Mask(ids)).astype(int)
    assert (drawn[0, 9] != drawn[0, 5]).any()
    assert (drawn[0, 10] != drawn[0, 15]).any()
    np.testing.assert_array_equal(drawn[0, 0], drawn[10, 5])


def test_void_beside_an_object_is_its_border() -> None:
    ids = np.ones((20, 20), np.uint8)
    ids[:, 10:] = 255
    drawn = draw_mask(gray(20, 20), Mask(ids))
    assert (drawn[5, 9] != drawn[5, 5]).any()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie over"):
        draw_mask(gray(4, 5), Mask(np.ones((5, 4), np.uint8)))


def pose(*joints: tuple[float, float, float], skeleton: tuple[tuple[int, int], ...] = ()) -> Keypoints:
    values = np.array(joints, np.float32)
    return Keypoints(values[:, :2].copy(), tuple(map(str, range(len(joints)))), skeleton, values[:, 2].copy())


def changed(pixels: np.ndarray, keypoints: Keypoints) -> np.ndarray:
    return np.asarray((draw_keypoints(pixels, keypoints, names=False) != pixels).any(-1))


def test_a_dot_is_centered_on_its_joint_and_grows_with_the_picture() -> None:
    areas = []
    for scale in (1, 4):
        touched = changed(gray(240 * scale, 320 * scale), pose((100 * scale, 80 * scale, 1)))
        rows, columns = np.nonzero(touched)
        assert (rows.mean(), columns.mean()) == pytest.approx((80 * scale, 100 * scale), abs=0.1)
        areas.append(touched.sum())
    assert areas[1] > 3 * areas[0]


def test_a_doubtful_joint_is_hollow() -> None:
    pixels = gray(1080, 1920)
    assert changed(pixels, pose((500, 400, 0.5)))[400, 500]
    doubtful = changed(pixels, pose((500, 400, 0.49)))
    assert not doubtful[400, 500]
    assert doubtful.any()


def test_absent_joints_are_not_drawn_nor_their_bones() -> None:
    pixels = gray(120, 160)
    nan = float("nan")
    assert not changed(pixels, pose((nan, nan, 0), (nan, nan, 0), skeleton=((0, 1),))).any()
    alone = changed(pixels, pose((30, 30, 1)))
    beside = changed(pixels, pose((30, 30, 1), (nan, nan, 0), skeleton=((0, 1),)))
    np.testing.assert_array_equal(alone, beside)


def test_a_bone_joins_its_joints() -> None:
    touched = changed(gray(120, 160), pose((20, 60, 1), (140, 60, 1), skeleton=((0, 1),)))
    assert touched[60, 20:141].all()
    assert not touched[:40].any()


def test_names_are_bright_with_a_dark_outline_and_stay_in_the_picture() -> None:
    pixels = gray(240, 320)
    for x, y in [(2, 2), (318, 2), (2, 238), (318, 238)]:
        drawn = draw_keypoints(pixels, Keypoints(np.array([[x, y]], np.float32), ("shoulder",)))
        away = np.hypot(*(np.indices((240, 320)) - np.array([y, x])[:, None, None])) > 6
        letters = drawn[away & (drawn != pixels).any(-1)]
        assert letters.min() < 40
        assert letters.max() > 230
        assert len(letters) > 200  # no part of the word is cut off


def test_a_name_does_not_cover_another_joint() -> None:
    keypoints = Keypoints(np.array([[100, 100], [108, 100], [116, 100]], np.float32), ("left", "middle", "right"))
    drawn = draw_keypoints(gray(240, 320), keypoints)
    unnamed = draw_keypoints(gray(240, 320), keypoints, names=False)
    for x in (100, 108, 116):
        np.testing.assert_array_equal(drawn[100, x], unnamed[100, x])


@settings(deadline=None, max_examples=25)
@given(
    x=st.floats(-1e6, 1e6, width=32),
    y=st.floats(-1e6, 1e6, width=32),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_any_place_and_any_size_of_picture_can_be_drawn(x: float, y: float, size: tuple[int, int]) -> None:
    pixels = gray(*size)
    positions = np.array([[x, y], [size[1] / 2, size[0] / 2]], np.float32)
    drawn = draw_keypoints(pixels, Keypoints(positions, ("far", "näher"), ((0, 1),)))
    assert drawn.shape == pixels.shape
    assert (pixels == 100).all()
