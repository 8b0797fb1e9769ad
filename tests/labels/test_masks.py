from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.errors import InputError
from propagate.labels import MaskCodec
from propagate.labels.masks import objects_of
from propagate.types import Mask
from tests.labels.frames import black_frame, masks_of_rectangles

quick = settings(deadline=None, max_examples=25)
grids = st.tuples(st.integers(1, 12), st.integers(1, 12))
encodings = st.sampled_from(["area", "blend", "nearest"])


def disc(height: int, width: int, object_id: int = 1) -> Mask:
    y, x = np.ogrid[:height, :width]
    inside = ((y - height / 2) / (0.35 * height)) ** 2 + ((x - width / 2) / (0.35 * width)) ** 2 < 1
    return Mask(np.where(inside, np.uint8(object_id), np.uint8(0)))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def decoded(codec: MaskCodec, soft: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    return codec.decode(soft, black_frame(*size)).mask.ids


def plainly_upsampled(codec: MaskCodec, soft: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Every channel stretched and at the frame's own size, those that cannot be predicted below all others."""
    maps = []
    for number, channel in enumerate(soft):
        low, high = channel.min(), channel.max()
        if codec.stretch and high > low and high >= codec.vanish:
            channel = (channel - low) / (high - low)
        upsampled = F.interpolate(channel[None, None], size=size, mode=codec.upsampling, align_corners=False)[0, 0]
        if number == 0:
            upsampled = upsampled.clamp(min=0)
        elif high < codec.vanish:
            upsampled = torch.full(size, -1.0)
        maps.append(upsampled)
    return torch.stack(maps)


# encoding


@quick
@given(masks_of_rectangles(), grids, encodings)
def test_labels_are_shares(mask, grid, encode):
    soft = MaskCodec(mask.objects, encode=encode).encode(mask, mask.size, grid)
    assert soft.dtype == torch.float32
    assert soft.shape == (1 + len(mask.objects), *grid)
    assert soft.min() >= 0
    torch.testing.assert_close(soft.sum(0), torch.ones(grid))


def test_area_is_the_covered_share_and_blend_halfway_to_nearest():
    ids = np.zeros((8, 16), np.uint8)
    ids[:, :10] = 9  # a cell and a quarter; the second cell's center is not on it
    soft = {
        encode: MaskCodec((9,), encode=encode).encode(Mask(ids), (8, 16), (1, 2))[1, 0].tolist()
        for encode in ("area", "nearest", "blend")
    }
    assert soft == {"area": [1, 0.25], "nearest": [1, 0], "blend": [1, 0.125]}


def test_void_counts_for_nothing():
    ids = np.zeros((8, 24), np.uint8)
    ids[:, 2:4] = 5
    ids[:, 4:16] = 255  # half of the first cell with its center, and all of the second
    area = MaskCodec((5,), encode="area").encode(Mask(ids), (8, 24), (1, 3))[:, 0]
    torch.testing.assert_close(area, torch.tensor([[0.5, 0, 1], [0.5, 0, 0]]))
    nearest = MaskCodec((5,), encode="nearest").encode(Mask(ids), (8, 24), (1, 3))[:, 0]
    torch.testing.assert_close(nearest, torch.tensor([[0.0, 0, 1], [0, 0, 0]]))
    ids[:, 8:16] = 0
    ids[0, 8:16] = 255
    ids[:4, :2] = 5  # 24 pixels of background and void, center void: the area alone
    blend = MaskCodec((5,), encode="blend").encode(Mask(ids), (8, 24), (1, 3))[:, 0]
    torch.testing.assert_close(blend, torch.tensor([[0.25, 1, 1], [0.75, 0, 0]]))


@pytest.mark.parametrize("encode", ["area", "blend"])
@pytest.mark.parametrize("stretch", [True, False])
def test_objects_smaller_than_a_cell_survive(encode, stretch):
    ids = np.zeros((48, 64), np.uint8)
    ids[1, 1] = 3
    ids[6:10, 30:34] = 4  # the corner of four cells
    ids[40:43, 57:59] = 200
    codec = MaskCodec((3, 4, 200), encode=encode, stretch=stretch)
    result = codec.decode(codec.encode(Mask(ids), (48, 64), (6, 8)), black_frame(48, 64)).mask
    assert result.objects == (3, 4, 200)
    assert overlap(result.ids[40:48, 56:64] == 200, np.ones((8, 8), bool)) > 0.5  # the cell it lies in
    assert (result.ids == 200).sum() < 2 * 64


def test_of_two_objects_inside_one_cell_one_survives():
    ids = np.zeros((16, 16), np.uint8)
    ids[1, 1], ids[2, 2] = 3, 4
    codec = MaskCodec((3, 4))
    assert codec.decode(codec.encode(Mask(ids), (16, 16), (2, 2)), black_frame(16, 16)).mask.objects == (3,)


def test_a_small_object_does_not_take_the_only_cell_of_another():
    ids = np.zeros((16, 16), np.uint8)
    ids[3:6, 3:6] = 2  # hit by the center of the first cell
    ids[0, 0] = 1
    soft = MaskCodec((1, 2)).encode(Mask(ids), (16, 16), (2, 2))
    assert (soft[1:].amax((1, 2)) >= 0.5).tolist() == [False, True]
    assert 0 < soft[1, 0, 0] < 0.1


def test_nearest_loses_what_no_center_hits():
    ids = np.zeros((48, 64), np.uint8)
    ids[1, 1] = 3
    assert MaskCodec((3,), encode="nearest").encode(Mask(ids), (48, 64), (6, 8))[1].max() == 0


def test_an_unknown_object_is_an_error():
    with pytest.raises(InputError, match=r"\[7\].*\[1, 2\]"):
        MaskCodec((1, 2)).encode(Mask(np.full((4, 4), 7, np.uint8)), (4, 4), (2, 2))


def test_the_objects_of_all_anchors_together():
    one, other = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    one[0], other[1] = (9, 255), (3, 9)
    assert objects_of([Mask(one), Mask(other)]) == (3, 9)
    soft = MaskCodec((3, 9)).encode(Mask(one), (2, 2), (2, 2))
    assert soft[1].max() == 0


# decoding


@pytest.mark.parametrize("upsample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("stretch", [True, False])
@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 5),
    grid=grids,
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    kind=st.sampled_from(["dense", "sparse", "noisy background"]),
    vanish=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_decoding_is_the_plain_argmax(upsample, stretch, seed, channels, grid, size, kind, vanish):
    soft = torch.rand((channels, *grid), generator=torch.Generator().manual_seed(seed))
    if kind == "sparse":
        soft = torch.relu(soft - 0.7)
    if kind == "noisy background":
        soft[1:] *= 0.1
        soft[1:, : grid[0] // 2] *= 9
        soft[0] = (1 - soft[1:].sum(0)).clamp(min=0)
    codec = MaskCodec(tuple(range(11, 10 + channels)), upsample=upsample, stretch=stretch, vanish=vanish)
    maps = plainly_upsampled(codec, soft, size)
    expected = torch.tensor([0, *codec.ids], dtype=torch.uint8)[maps.argmax(0)].numpy()
    if channels > 1:
        best, second = maps.topk(2, dim=0).values
        decided = (best - second > 1e-4).numpy()
    else:
        decided = np.ones(size, bool)
    assert (decoded(codec, soft, size) == expected)[decided].all()


@quick
@given(masks_of_rectangles(), grids)
def test_renaming_the_objects_renames_the_result(mask, grid):
    names = np.arange(256, dtype=np.uint8)
    names[list(mask.objects)] = np.linspace(11, 254, len(mask.objects)).astype(np.uint8)
    renamed = Mask(names[mask.ids])
    results = []
    for label in (mask, renamed):
        codec = MaskCodec(label.objects)
        results.append(codec.decode(codec.encode(label, label.size, grid), black_frame(*mask.size)))
    assert (names[results[0].mask.ids] == results[1].mask.ids).all()
    assert list(results[0].confidence.values()) == list(results[1].confidence.values())


@quick
@given(masks_of_rectangles(), grids, st.permutations(range(4)))
def test_the_order_of_the_objects_only_breaks_ties(mask, grid, order):
    codec = MaskCodec(mask.objects)
    permuted = MaskCodec(tuple(mask.objects[i] for i in order if i < len(mask.objects)))
    soft = codec.encode(mask, mask.size, grid)
    permutation = [0, *(1 + mask.objects.index(i) for i in permuted.ids)]
    best, second = plainly_upsampled(codec, soft, mask.size).topk(2, dim=0).values
    same = decoded(codec, soft, mask.size) == decoded(permuted, soft[permutation], mask.size)
    assert same[(best - second > 1e-4).numpy()].all()


@pytest.mark.parametrize("encode", ["area", "blend", "nearest"])
@pytest.mark.parametrize(("size", "grid"), [((96, 160), (12, 20)), ((97, 131), (12, 17)), ((160, 90), (40, 24))])
def test_a_mask_comes_back(encode, size, grid):
    mask = disc(*size, object_id=254)
    codec = MaskCodec((254,), encode=encode)
    prediction = codec.decode(codec.encode(mask, size, grid), black_frame(*size))
    assert prediction.index == 7
    assert prediction.time_s == 0.28
    assert prediction.mask.objects == (254,)
    assert overlap(prediction.mask.ids == 254, mask.ids == 254) > 0.9
    assert 0.8 < prediction.confidence[254] <= 1


def test_area_with_bicubic_is_the_best_round_trip():
    mask = disc(160, 240)

    def score(encode, upsample):
        codec = MaskCodec((1,), encode=encode, upsample=upsample, stretch=False)
        return overlap(decoded(codec, codec.encode(mask, mask.size, (20, 30)), mask.size) == 1, mask.ids == 1)

    assert score("area", "bicubic") > 0.99
    assert score("area", "bicubic") > score("area", "bilinear") > score("nearest", "bilinear")


@pytest.mark.parametrize("encode", ["area", "blend", "nearest"])
@pytest.mark.parametrize("grid", [(1, 1), (4, 6)])
def test_a_frame_of_one_object(encode, grid):
    codec = MaskCodec((8,), encode=encode)
    mask = Mask(np.full((32, 48), 8, np.uint8))
    prediction = codec.decode(codec.encode(mask, (32, 48), grid), black_frame(32, 48))
    assert (prediction.mask.ids == 8).all()
    assert prediction.confidence[8] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ids", [(), (1, 2)])
def test_an_empty_mask(ids):
    codec = MaskCodec(ids)
    mask = Mask(np.zeros((32, 48), np.uint8))
    prediction = codec.decode(codec.encode(mask, (32, 48), (4, 6)), black_frame(32, 48))
    assert not prediction.mask.ids.any()
    assert prediction.confidence == dict.fromkeys(ids, 0.0)


def test_labels_of_nothing_are_background():
    prediction = MaskCodec((1,)).decode(torch.zeros(2, 4, 6), black_frame(32, 48))
    assert not prediction.mask.ids.any()
    assert prediction.confidence == {1: 0}


def test_stretching_brings_a_weak_object_back_and_vanishing_keeps_a_lost_one_out():
    soft = torch.zeros(2, 8, 8)
    soft[1, 2:6, 2:6] = 0.3
    soft[0] = 1 - soft[1]
    shape = np.zeros((64, 64), bool)
    shape[16:48, 16:48] = True
    assert overlap(decoded(MaskCodec((1,)), soft, (64, 64)) == 1, shape) > 0.9
    assert not decoded(MaskCodec((1,), stretch=False), soft, (64, 64)).any()
    assert not decoded(MaskCodec((1,), vanish=0.31), soft, (64, 64)).any()
    assert decoded(MaskCodec((1,), vanish=0.3), soft, (64, 64)).any()


def test_a_vanished_object_does_not_disturb_the_others():
    soft = torch.zeros(3, 8, 8)
    soft[1, 2:6, 2:6] = 0.9
    soft[2, 2:4, 2:4] = 0.09
    soft[0] = 1 - soft[1:].sum(0).clamp(max=1)
    with_it = decoded(MaskCodec((1, 2)), soft, (64, 64))
    without = decoded(MaskCodec((1,)), soft[:2], (64, 64))
    assert (with_it == without).all()
    assert (with_it == 1).any()


def test_confidence_is_the_label_over_the_predicted_pixels():
    soft = torch.zeros(3, 4, 4)
    soft[1, :2] = 0.8
    soft[2, :2] = 0.2
    soft[0, 2:] = 1
    prediction = MaskCodec((4, 6), upsample="bilinear").decode(soft, black_frame(4, 4))
    assert prediction.confidence == pytest.approx({4: 0.8, 6: 0})
    assert (prediction.mask.ids[:2] == 4).all()


@quick
@given(masks_of_rectangles(void=True), grids, encodings, st.booleans())
def test_confidence_lies_between_zero_and_one(mask, grid, encode, stretch):
    codec = MaskCodec(mask.objects, encode=encode, stretch=stretch)
    prediction = codec.decode(codec.encode(mask, mask.size, grid), black_frame(*mask.size))
    assert set(prediction.mask.objects) <= set(mask.objects)
    assert list(prediction.confidence) == list(mask.objects)
    for object_id, confidence in prediction.confidence.items():
        assert 0 <= confidence <= 1
        assert (confidence > 0) == (object_id in prediction.mask.objects)


def test_half_precision_labels_are_decoded():
    mask = disc(64, 64)
    codec = MaskCodec((1,))
    soft = codec.encode(mask, (64, 64), (8, 8))
    half = decoded(codec, soft.half(), (64, 64))
    assert overlap(half == 1, decoded(codec, soft, (64, 64)) == 1) > 0.99


def test_the_given_mask_is_its_own_prediction():
    mask = disc(20, 30, object_id=2)
    prediction = MaskCodec((2, 5)).given(mask, black_frame(20, 30))
    assert prediction.mask is mask
    assert prediction.index == 7
    assert prediction.confidence == {2: 1, 5: 0}
