from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.labels import MaskCodec
from propagate.labels.color_sides import EVIDENCE_LIMIT, TopTwo, color_evidence, reduction_of
from propagate.types import Frame, Mask
from tests.labels.frames import black_frame, masks_of_rectangles

quick = settings(deadline=None, max_examples=25)
sides = st.integers(1, 60)
CELL = 8
COLORS = np.array([[40, 120, 60], [200, 60, 40], [60, 60, 220], [230, 230, 90]], np.uint8)


def painted(ids: np.ndarray, noise: int = 0) -> Frame:
    """A frame in which every object has a color of its own."""
    pixels = COLORS[ids % len(COLORS)].astype(np.int64)
    pixels += np.random.default_rng(0).integers(-noise, noise + 1, pixels.shape)
    return Frame(pixels.clip(0, 255).astype(np.uint8), 3, 0.1)


def decoded(upsample, label: Mask, frame: Frame, grid: tuple[int, int]) -> np.ndarray:
    codec = MaskCodec(label.objects, encode="area", upsample=upsample)
    return codec.decode(codec.encode(label, label.size, grid), frame).mask.ids


def wrong(result: np.ndarray, truth: np.ndarray) -> int:
    return int((result != truth).sum())


@pytest.mark.parametrize("noise", [0, 20])
def test_an_outline_is_found_where_the_label_is_off_by_part_of_a_cell(noise):
    truth = np.zeros((96, 128), np.uint8)
    truth[20:75, 37:91] = 1
    label = Mask(np.roll(truth, (3, -3), axis=(0, 1)))  # as labels are that were carried along
    grid = 96 // CELL, 128 // CELL
    bicubic = wrong(decoded("bicubic", label, painted(truth, noise), grid), truth)
    guided = wrong(decoded("guided", label, painted(truth, noise), grid), truth)
    assert bicubic > 500
    assert guided < bicubic / 5


def test_what_is_thinner_than_a_cell_is_found():
    truth = np.zeros((64, 96), np.uint8)
    truth[10:54, 40:56] = 1
    truth[30:33, 20:40] = 1  # an arm of three pixels
    arm = np.s_[30:33, 22:38]
    assert not decoded("bicubic", Mask(truth), painted(truth), (8, 12))[arm].any()
    assert decoded("guided", Mask(truth), painted(truth), (8, 12))[arm].mean() > 0.9


@quick
@given(masks_of_rectangles(), st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 255))
def test_a_flat_picture_says_nothing(mask, grid, gray):
    frame = Frame(np.full((*mask.size, 3), gray, np.uint8), 0, 0.0)
    assert (decoded("guided", mask, frame, grid) == decoded("bicubic", mask, frame, grid)).all()


@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    objects=st.integers(0, 4),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(sides, sides),
)
def test_only_objects_that_have_a_label_are_predicted(seed, objects, grid, size):
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand((1 + objects, *grid), generator=generator)
    soft *= torch.rand((1 + objects, *grid), generator=generator) > 0.5
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    ids = tuple(range(254, 254 - objects, -1))
    prediction = MaskCodec(ids, upsample="guided", vanish=0.3).decode(soft, Frame(pixels, 0, 0.0))
    assert prediction.mask.size == size
    labelled = {i for i, channel in zip(ids, soft[1:], strict=True) if channel.max() >= 0.3}
    assert set(prediction.mask.objects) <= labelled
    for object_id, confidence in prediction.confidence.items():
        assert 0 <= confidence <= 1
        assert (confidence > 0) == (object_id in prediction.mask.objects)


def test_an_object_that_is_far_from_an_outline_is_left_alone():
    label = np.zeros((160, 160), np.uint8)
    label[40:120, 40:120] = 1
    picture = label.copy()
    picture[72:88, 72:88] = 2  # something in the middle of the object, as an eye
    picture[4:12, 4:12] = 1  # its color, far away
    result = decoded("guided", Mask(label), painted(picture), (20, 20))
    assert result[72:88, 72:88].all()
    assert not result[:16, :16].any()


def test_two_objects_meet_where_their_colors_do():
    truth = np.zeros((96, 128), np.uint8)
    truth[16:80, 16:61] = 5
    truth[16:80, 61:112] = 6
    label = truth.copy()
    label[16:80, 58:61] = 6
    guided = decoded("guided", Mask(label), painted(truth), (12, 16))
    inner = np.s_[24:72, 24:104]
    assert wrong(decoded("bicubic", Mask(label), painted(truth), (12, 16))[inner], truth[inner]) > 100
    assert wrong(guided[inner], truth[inner]) < 10


@pytest.mark.parametrize(("size", "grid"), [((37, 53), (5, 7)), ((75, 107), (9, 13))])
def test_gray_pictures_and_odd_sizes(size, grid):
    truth = np.zeros(size, np.uint8)
    truth[9:31, 11:39] = 1
    gray = np.where(truth == 0, np.uint8(70), np.uint8(180))
    frame = Frame(np.repeat(gray[..., None], 3, 2), 0, 0.0)
    bicubic, guided = (wrong(decoded(upsample, Mask(truth), frame, grid), truth) for upsample in ("bicubic", "guided"))
    assert guided < bicubic / 2


@quick
@given(row=st.integers(0, 47), column=st.integers(0, 63), color=st.integers(0, 255))
def test_an_object_of_one_pixel_is_not_lost(row, column, color):
    ids = np.zeros((48, 64), np.uint8)
    ids[row, column] = 3
    pixels = np.random.default_rng(row).integers(80, 120, (48, 64, 3), dtype=np.uint8)
    pixels[row, column] = color
    found = np.argwhere(decoded("guided", Mask(ids), Frame(pixels, 0, 0.0), (6, 8)) == 3)
    assert len(found) > 0
    assert (abs(found - (row, column)) < 2 * CELL).all()


def test_an_empty_mask_stays_empty():
    codec = MaskCodec((1, 2), upsample="guided")
    prediction = codec.decode(codec.encode(Mask(np.zeros((32, 48), np.uint8)), (32, 48), (4, 6)), black_frame(32, 48))
    assert not prediction.mask.ids.any()
    assert prediction.confidence == {1: 0, 2: 0}


def test_evidence_is_for_the_side_of_the_same_color():
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :28] = 200
    margin = np.repeat(np.linspace(2, -2, 64, dtype=np.float32)[None], 32, 0)  # its zero is 4 pixels to the right
    evidence = color_evidence(pixels, margin, (8.0, 8.0), 1)
    assert evidence.shape == margin.shape
    assert (evidence[:, 28:32] < 0).all()
    assert (evidence[:, 20:28] > 0).all()
    assert np.abs(evidence).max() <= EVIDENCE_LIMIT
    np.testing.assert_allclose(color_evidence(pixels, -margin, (8.0, 8.0), 1), -evidence, atol=1e-4)


def test_one_side_alone_is_no_evidence():
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    evidence = color_evidence(pixels, np.full((24, 24), -0.4, np.float32), (8.0, 8.0), 1)
    np.testing.assert_allclose(evidence, 0, atol=1e-3)


def test_a_contest_of_three():
    contest = TopTwo(np.array([[0.5, 0.5, 0.5]], np.float32))
    everywhere = (slice(0, 1), slice(0, 3))
    contest.add(7, everywhere, np.array([[0.6, 0.4, 0.1]], np.float32))
    contest.add(9, (slice(0, 1), slice(0, 2)), np.array([[0.55, 0.45]], np.float32))
    assert contest.owner.tolist() == [[7, 0, 0]]
    margin = contest.margin(9, (slice(0, 1), slice(0, 2)), np.array([[0.55, 0.45]], np.float32))
    np.testing.assert_allclose(margin, [[-0.05, -0.05]], atol=1e-6)
    contest.add_evidence(7, everywhere, np.full((1, 3), -1, np.float32))
    contest.add_evidence(9, (slice(0, 1), slice(0, 2)), np.full((1, 2), 1, np.float32))
    contest.apply_evidence()
    # first: the runner-up of both objects; second: 9 against the background; third: 7 against it, in vain
    assert contest.owner.tolist() == [[9, 9, 0]]
    np.testing.assert_allclose(contest.greatest, [[0.55, 0.45, 0.5]])


def test_large_frames_are_compared_small():
    assert [reduction_of(size) for size in ((1, 1), (240, 400), (480, 854), (1920, 1080))] == [1, 1, 2, 4]
