from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, boolean_dtypes, integer_dtypes

from propagate import InputError, Keypoints, Mask
from propagate.types import as_label

IDS = np.array([[0, 1], [254, 255]])
NAMES = ("nose", "tail")
POINTS = np.array([[1.5, 2.0], [np.nan, np.nan]], np.float32)

shapes_2d = array_shapes(min_dims=2, max_dims=2, max_side=6)


@given(arrays(boolean_dtypes() | integer_dtypes(endianness="?"), shapes_2d))
def test_a_mask_holds_what_was_given_or_refuses_it(values: np.ndarray) -> None:
    fits = values.min() >= 0 and values.max() <= 255
    if not fits:
        with pytest.raises(InputError, match=r"values from -?\d+ to -?\d+; expected 0 to 255"):
            Mask(values)
        return
    mask = Mask(values)
    assert mask.ids.dtype == np.uint8
    np.testing.assert_array_equal(mask.ids, values)
    assert mask.size == values.shape
    assert mask.objects == tuple(sorted({int(v) for v in values.ravel()} - {0, 255}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3)), "mask has type float64; expected integers.*astype.*mask > 0.5"),
        (np.zeros((2, 3, 1), np.uint8), r"shape \(2, 3, 1\).*expected \(height, width\).*mask\[..., 0\]"),
        (np.zeros((1, 2, 3), np.uint8), r"mask\[0\]"),
        (np.zeros((2, 2, 3), np.uint8), "Convert colors.*read_mask"),
        (np.zeros((2, 9, 9), np.uint8), "Merge the layers"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.array([["a"]]), "mask has type <U1"),
        (np.array([[None]]), "mask has type object"),
        (np.ma.masked_array(np.zeros((2, 2), np.uint8), True), "masked array.*filled"),
        ([[1, 2], [3]], "do not form an array"),
        ("mask.png", "text 'mask.png'.*read_mask"),
        (Path("mask.png"), "read_mask"),
        (None, "cannot be a NoneType"),
        (torch.zeros(2, 2), "cannot be a Tensor.*Convert it to a NumPy array"),
    ],
)
def test_a_mask_that_is_none_says_what_was_given_and_what_is_wanted(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mask(values)


def test_lists_of_numbers_are_a_mask() -> None:
    np.testing.assert_array_equal(Mask(IDS.tolist()).ids, IDS)


def test_labels_do_not_change_with_the_arrays_they_were_made_of() -> None:
    ids, points, confidence = IDS.astype(np.uint8), POINTS.copy(), np.ones(2, np.float32)
    mask, keypoints = Mask(ids), Keypoints(points, NAMES, confidence=confidence)
    ids[:], points[:], confidence[:] = 7, 7, 0.5
    np.testing.assert_array_equal(mask.ids, IDS)
    np.testing.assert_array_equal(keypoints.positions, POINTS)
    assert keypoints.confidence.tolist() == [1, 1]


def test_a_mask_may_be_turned_or_cut_out() -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(Mask(ids.T).ids, ids.T)
    assert Mask(ids[::2, ::-1]).ids.flags.c_contiguous


coordinates = st.one_of(
    st.integers(-(2**20), 2**20), st.floats(-1e6, 1e6, width=32), st.sampled_from([float("nan"), float("inf"), 1e300])
)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=5))
def test_keypoints_hold_what_was_given_or_refuse_it(points: list[tuple[float, float]]) -> None:
    values = np.array(points, np.float64)
    names = [f"joint {i}" for i in range(len(points))]
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float32)
    absent = np.isnan(wanted).all(1)
    if not (absent | np.isfinite(wanted).all(1)).all():
        with pytest.raises(InputError, match=r"expected two finite numbers.*both are NaN"):
            Keypoints(values, names)
        return
    keypoints = Keypoints(values, names)
    assert keypoints.names == tuple(names)
    assert keypoints.positions.dtype == keypoints.confidence.dtype == np.float32
    np.testing.assert_array_equal(keypoints.positions, wanted)
    np.testing.assert_array_equal(keypoints.present, ~absent)
    np.testing.assert_array_equal(keypoints.confidence, ~absent)


@given(st.floats(width=32))
def test_a_confidence_lies_in_0_to_1(value: float) -> None:
    given_ = np.array([value, 1])
    if 0 <= value <= 1:
        assert Keypoints(POINTS, NAMES, confidence=given_).confidence[0] == value
    else:
        with pytest.raises(InputError, match=r"confidence of 'nose' is .* 0 to 1"):
            Keypoints(POINTS, NAMES, confidence=given_)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ("a", "b", "c")}, r"shape \(2, 2\) for 3 names; expected \(3, 2\)"),
        ({"names": ("a", "a")}, "Two joints have the name 'a'"),
        ({"names": ("a", " ")}, "name is ' '"),
        ({"names": ("a", 3)}, "name is 3"),
        ({"names": "ab"}, "names of keypoints are a str"),
        ({"names": ()}, "have no joint"),
        ({"positions": np.zeros((2, 3))}, r"shape \(2, 3\)"),
        ({"positions": np.array([["1", "2"], ["3", "4"]])}, "Positions cannot have type <U1"),
        (
            {"positions": np.array([[1, 2], [None, None]])},
            "cannot have type object.*NaN where a joint is absent",
        ),
        ({"positions": np.array([[1, 2], [3, np.nan]])}, r"position of 'tail' is \(3.0, nan\)"),
        ({"confidence": np.ones(3)}, r"shape \(3,\) for 2 names"),
        ({"skeleton": ((0, 2),)}, r"bone \(0, 2\); expected joint numbers from 0 to 1"),
        ({"skeleton": ((0, -1),)}, r"bone \(0, -1\)"),
        ({"skeleton": ((0, 0.5),)}, r"bone \(0, 0.5\)"),
        ({"skeleton": ((0, 1, 1),)}, "pairs of joints"),
        ({"skeleton": 3}, "pairs of joints"),
    ],
)
def test_keypoints_that_are_none_say_what_was_given_and_what_is_wanted(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Keypoints(**{"positions": POINTS, "names": NAMES, **fields})


def test_lists_are_keypoints() -> None:
    keypoints = Keypoints([[1, 2], [3, 4]], ["a", "b"], [[0, np.int64(1)]])
    assert keypoints.names == ("a", "b")
    assert keypoints.skeleton == ((0, 1),)
    assert keypoints.positions.tolist() == [[1, 2], [3, 4]]


def test_an_array_is_a_mask_where_a_label_is_wanted() -> None:
    mask = Mask(IDS)
    assert as_label(mask) is mask
    label = as_label(np.repeat(IDS, 3, axis=1) == 1)
    assert isinstance(label, Mask)
    assert label.objects == (1,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (POINTS, r"shape \(2, 2\): positions without names\?.*Keypoints\(array, names\)"),
        (np.zeros((4, 4), np.uint8), "has no object.*every pixel is background"),
        (np.full((4, 4), 255, np.uint8), "has no object.*255, which is void.*mask > 0"),
        ("mask.png", "read_mask"),
    ],
)
def test_what_is_no_label_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_label(values)
