"""Annotated frames that speak of some objects or joints only."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import pytest
import torch

from propagate.errors import InputError
from propagate.labels import CrwMaskCodec, DiftMaskCodec, JhmdbCodec, KeypointCodec, MaskCodec
from propagate.types import Keypoints, Mask
from tests.labels.frames import black_frame

SIZE, GRID = (64, 96), (8, 12)

mask_codecs = pytest.mark.parametrize(
    "codec", [MaskCodec((3, 7, 9)), DiftMaskCodec((3, 7, 9), stride=8), CrwMaskCodec((3, 7, 9))]
)
joint_codecs = pytest.mark.parametrize("codec", [KeypointCodec(("a", "b", "c")), JhmdbCodec(("a", "b", "c"))])


def mask_with(object_id: int, rows: slice, columns: slice, absent: Set[int] = frozenset()) -> Mask:
    ids = np.zeros(SIZE, np.uint8)
    ids[rows, columns] = object_id
    return Mask(ids, absent=absent)


@mask_codecs
def test_objects_that_are_neither_shown_nor_absent_are_untouched(codec):
    assert codec.untouched(mask_with(7, slice(8), slice(8))) == (1, 3)
    assert codec.untouched(mask_with(7, slice(8), slice(8), absent={3})) == (3,)
    assert codec.untouched(mask_with(7, slice(8), slice(8), absent={3, 9})) == ()


@mask_codecs
def test_an_untouched_object_keeps_its_prediction_where_the_mask_leaves_room(codec):
    left, overlapping = mask_with(7, slice(16, 48), slice(0, 48)), mask_with(3, slice(16, 48), slice(32, 80))
    predicted = codec.encode(overlapping, SIZE, GRID)
    given = codec.encode(left, SIZE, GRID)
    soft = codec.complete(given, predicted, codec.untouched(left))
    torch.testing.assert_close(soft.sum(0), torch.ones(GRID))
    assert torch.equal(soft[2], given[2])
    assert soft[1, 3, 5] == 0  # the mask's
    assert soft[1, 3, 8] == 1
    prediction = codec.given(left, black_frame(*SIZE), soft)
    expected = left.ids.copy()
    expected[16:48, 48:80] = 3
    found = prediction.mask.ids
    np.testing.assert_array_equal(found[left.ids == 7], 7)
    assert 7 not in found[left.ids != 7]
    assert (found != expected).mean() < 0.01  # corners are rounded on the way from the grid
    assert prediction.confidence[7] == 1
    assert 0.5 < prediction.confidence[3] <= 1
    assert prediction.confidence[9] == 0


def test_what_a_mask_takes_from_an_object_goes_to_the_background():
    """A corrected object leaves the cells where it was predicted wrongly."""
    codec = MaskCodec((3, 7), encode="area")
    predicted = codec.encode(mask_with(7, slice(0, 64), slice(0, 96)), SIZE, GRID)
    corrected = mask_with(7, slice(0, 16), slice(0, 16))
    soft = codec.complete(codec.encode(corrected, SIZE, GRID), predicted, codec.untouched(corrected))
    assert soft[0, 5, 5] == 1
    assert soft[2].sum() == 4


def test_an_absent_object_leaves_no_label_even_where_it_was_predicted():
    codec = MaskCodec((3, 7))
    gone = mask_with(7, slice(0, 16), slice(0, 16), absent={3})
    assert codec.untouched(gone) == ()
    prediction = codec.given(gone, black_frame(*SIZE))
    assert prediction.mask is gone
    assert prediction.confidence == {3: 0.0, 7: 1.0}


def test_void_pixels_stay_void_beside_an_untouched_object():
    codec = MaskCodec((3, 7))
    ids = mask_with(7, slice(0, 16), slice(0, 96)).ids.copy()
    ids[32:] = 255
    label = Mask(ids)
    everywhere = codec.encode(mask_with(3, slice(0, 64), slice(0, 96)), SIZE, GRID)
    soft = codec.complete(codec.encode(label, SIZE, GRID), everywhere, codec.untouched(label))
    assert soft[:, 5].abs().max() == 0
    found = codec.given(label, black_frame(*SIZE), soft).mask.ids
    assert (found[32:] == 255).all()
    assert (found[:16] == 7).all()
    assert (found[20:28] == 3).all()


@mask_codecs
def test_a_mask_with_an_object_nobody_carries_is_refused(codec):
    with pytest.raises(InputError, match=r"objects \[5\]"):
        codec.encode(mask_with(5, slice(8), slice(8)), SIZE, GRID)
    with pytest.raises(InputError, match=r"objects \[5\]"):
        codec.encode(mask_with(7, slice(8), slice(8), absent={5}), SIZE, GRID)


@pytest.mark.parametrize("absent", [7, 0, 255, -1])
def test_what_is_called_absent_is_an_object_and_not_in_the_mask(absent):
    with pytest.raises(InputError, match=f"Object {absent} cannot be absent"):
        mask_with(7, slice(8), slice(8), absent={absent})


@joint_codecs
def test_joints_that_are_not_named_keep_their_prediction(codec):
    places = np.array([[20, 20], [44, 36], [76, 52]], np.float32)
    before = codec.encode(Keypoints(places, ("a", "b", "c")), SIZE, GRID)
    corrected = Keypoints(np.array([[60, 12], [np.nan, np.nan]], np.float32), ("c", "a"))
    assert codec.untouched(corrected) == (2,)
    given = codec.encode(corrected, SIZE, GRID)
    soft = codec.complete(given, before, codec.untouched(corrected))
    assert torch.equal(soft[2], before[2])
    assert soft[1].abs().max() == 0
    assert soft.min() >= 0
    found = codec.given(corrected, black_frame(*SIZE), soft)
    assert found.keypoints.names == ("a", "b", "c")
    assert np.isnan(found.keypoints.positions[0]).all()
    np.testing.assert_allclose(
        found.keypoints.positions[1], codec.decode(before, black_frame(*SIZE)).keypoints.positions[1]
    )
    np.testing.assert_array_equal(found.keypoints.positions[2], [60, 12])
    assert list(found.confidence) == ["a", "b", "c"]
    assert found.confidence["a"] == 0
    assert found.confidence["b"] > 0.5
    assert found.confidence["c"] == 1


@joint_codecs
def test_the_order_of_names_does_not_matter(codec):
    places = np.array([[20, 20], [44, 36], [76, 52]], np.float32)
    there = codec.encode(Keypoints(places, ("a", "b", "c")), SIZE, GRID)
    assert torch.equal(codec.encode(Keypoints(places[::-1].copy(), ("c", "b", "a")), SIZE, GRID), there)


@joint_codecs
def test_a_joint_nobody_carries_is_refused(codec):
    with pytest.raises(InputError, match="have d; labels are carried for a, b, c"):
        codec.encode(Keypoints(np.zeros((2, 2), np.float32), ("a", "d")), SIZE, GRID)
