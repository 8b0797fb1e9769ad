from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.errors import UsageError
from propagate.features.learned_prompts.attention_labels import AttentionLabels
from propagate.labels import KeypointCodec, MaskCodec
from propagate.types import Frame, Keypoints, Mask

SIZE, GRID = (128, 192), (16, 24)


def frame() -> Frame:
    return Frame(np.zeros((*SIZE, 3), np.uint8), 1, 0.0)


def gaussian(x: float, y: float, peak: float, sigma: float = 3.5) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(GRID[0]), torch.arange(GRID[1]), indexing="ij")
    return peak * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def pixels(x: float, y: float) -> list[float]:
    return [8 * x + 3.5, 8 * y + 3.5]


@pytest.fixture
def joints():
    """Two joints in the middle of the frame, and attention to them of 0.4 and 0.8."""
    label = Keypoints(np.array([pixels(11, 8), pixels(12, 7)], np.float32), ("a", "b"))
    codec = KeypointCodec(label.names, sigma=3.5)
    labels = AttentionLabels()
    given = codec.encode(label, SIZE, GRID)
    assert labels.anchor(torch.stack([gaussian(11, 8, 0.4), gaussian(12, 7, 0.8)]), given) is given
    return codec, labels


def test_as_much_attention_as_on_the_anchor_is_certain_and_in_place(joints):
    codec, labels = joints
    soft = labels.step(torch.stack([gaussian(13.4, 7.7, 0.4), gaussian(10, 8, 0.4)]))
    found = codec.decode(soft, frame()).keypoints
    np.testing.assert_allclose(found.positions, [pixels(13.4, 7.7), pixels(10, 8)], atol=0.8)  # a tenth of a cell
    np.testing.assert_allclose(found.confidence, [1, 0.5], atol=0.03)


def test_no_attention_is_absent(joints):
    codec, labels = joints
    soft = labels.step(torch.stack([torch.zeros(GRID), gaussian(10, 8, 0.8)]))
    np.testing.assert_array_equal(codec.decode(soft, frame()).keypoints.present, [False, True])


def test_an_absent_joint_with_a_prompt_is_found_where_it_appears():
    names = ("a", "late")
    codec, labels = KeypointCodec(names, sigma=3.5), AttentionLabels(window="square", radius=2)
    label = Keypoints(np.array([pixels(11, 8), [np.nan, np.nan]], np.float32), names)
    labels.anchor(torch.stack([gaussian(11, 8, 0.5), torch.zeros(GRID)]), codec.encode(label, SIZE, GRID))
    soft = labels.step(torch.stack([gaussian(11, 8, 0.5), gaussian(5, 6, 1.0)]))
    np.testing.assert_allclose(codec.decode(soft, frame()).keypoints.positions[1], pixels(5, 6), atol=0.8)


def test_masks_have_the_background_that_their_attention_leaves():
    ids = np.zeros(SIZE, np.uint8)
    ids[32:96, 32:96] = 7
    codec, labels = MaskCodec((7,)), AttentionLabels()
    labels.anchor(torch.full((1, *GRID), 0.5), codec.encode(Mask(ids), SIZE, GRID))
    attention = torch.full((1, *GRID), 0.05)
    attention[0, 4:12, 8:16] = 0.5
    soft = labels.step(attention)
    torch.testing.assert_close(soft.sum(0), torch.ones(GRID))
    found = codec.decode(soft, frame()).mask.ids
    expected = np.zeros(SIZE, np.uint8)
    expected[32:96, 64:128] = 7
    assert (found == expected).mean() > 0.98


@pytest.mark.parametrize(("window", "radius", "found"), [("square", 4, False), ("circle", 4, False), ("none", 4, True)])
def test_a_stronger_peak_far_away_counts_without_a_window_only(window, radius, found):
    label = Keypoints(np.array([pixels(4, 8)], np.float32), ("a",))
    codec, labels = KeypointCodec(label.names), AttentionLabels(window=window, radius=radius)
    labels.anchor(gaussian(4, 8, 1.0, 0.7)[None], codec.encode(label, SIZE, GRID))
    soft = labels.step((gaussian(6, 8, 0.5, 0.7) + gaussian(20, 8, 1.0, 0.7))[None])
    x = codec.decode(soft, frame()).keypoints.positions[0, 0]
    assert x == pytest.approx(pixels(20 if found else 6, 8)[0], abs=1)


def test_the_window_goes_along():
    label = Keypoints(np.array([pixels(2, 8)], np.float32), ("a",))
    codec, labels = KeypointCodec(label.names), AttentionLabels(window="square", radius=4)
    labels.anchor(gaussian(2, 8, 1.0, 0.7)[None], codec.encode(label, SIZE, GRID))
    for x in (4, 6, 8, 10, 12):
        soft = labels.step((gaussian(x, 8, 0.8, 0.7) + gaussian(21, 8, 1.0, 0.7))[None])
        assert codec.decode(soft, frame()).keypoints.positions[0, 0] == pytest.approx(pixels(x, 8)[0], abs=1)


def test_a_label_that_a_frame_hardly_attends_to_is_not_blown_up():
    label = Keypoints(np.array([pixels(11, 8)], np.float32), ("a",))
    codec, labels = KeypointCodec(label.names, sigma=3.5), AttentionLabels()
    labels.anchor(gaussian(11, 8, 0.01)[None], codec.encode(label, SIZE, GRID))
    confidence = codec.decode(labels.step(gaussian(11, 8, 0.01)[None]), frame()).keypoints.confidence
    np.testing.assert_allclose(confidence, [0.1], atol=0.02)


def test_objects_of_later_anchors_alone_are_refused():
    with pytest.raises(UsageError, match="learned on the first frame"):
        AttentionLabels().anchor(torch.zeros(1, *GRID), torch.zeros(3, *GRID))


def test_an_anchor_comes_first():
    with pytest.raises(ValueError, match="anchor"):
        AttentionLabels().step(torch.zeros(1, *GRID))


def test_predicting_keeps_nothing():
    """`predict` gives what `step` would, and what comes after it is as if it had not been called."""
    codec = MaskCodec((1,))
    ids = np.zeros(SIZE, np.uint8)
    ids[: SIZE[0] // 2, : SIZE[1] // 2] = 1
    labels, steps = AttentionLabels(window="square", radius=2), [gaussian(4, 8, 0.9)[None], gaussian(5, 9, 0.8)[None]]
    labels.anchor(steps[0], codec.encode(Mask(ids), SIZE, GRID))
    looked = labels.predict(steps[1])
    labels.predict(gaussian(20, 20, 1.0)[None])
    assert torch.equal(labels.step(steps[1]), looked)
