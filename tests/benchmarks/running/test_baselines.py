from __future__ import annotations

import cv2
import numpy as np
import pytest

from propagate.benchmarks.running.baselines import flow, static
from propagate.errors import InputError
from propagate.metrics import region_similarity
from propagate.types import Frame, Keypoints, Mask
from tests.benchmarks.running.squares import FRAMES, HEIGHT, STEP, WIDTH, picture, square_ids


def clip(count: int = FRAMES) -> list[Frame]:
    return [Frame(picture(index), index, index / 10) for index in range(count)]


def points(*positions: tuple[float, float]) -> Keypoints:
    return Keypoints(np.array(positions, np.float32), tuple("abcdef"[: len(positions)]), ((0, 1),))


def center(ids: np.ndarray) -> np.ndarray:
    return np.mean(np.nonzero(ids), axis=1)


def test_static_is_the_first_label_in_every_frame():
    mask, joints = Mask(square_ids(0)), points((20, 20), (np.nan, np.nan))
    predictions = list(static(clip(), mask))
    assert [p.index for p in predictions] == list(range(FRAMES))
    assert all((p.mask.ids == mask.ids).all() for p in predictions)
    assert predictions[-1].confidence == {3: 1.0, 7: 1.0}
    found = list(static(clip(), joints))[-1]
    np.testing.assert_array_equal(found.keypoints.positions, joints.positions)
    assert found.confidence == {"a": 1.0, "b": 0.0}


def test_flow_follows_a_moving_square_within_a_pixel():
    # not for ever: a little of the ground that it uncovers sticks to it in every frame
    predictions = list(flow(clip(5), Mask(square_ids(0))))
    assert [p.index for p in predictions] == list(range(5))
    assert (predictions[0].mask.ids == square_ids(0)).all()
    for index, prediction in enumerate(predictions):
        for number in (3, 7):
            found, true = prediction.mask.ids == number, square_ids(index) == number
            assert np.abs(center(found) - center(true)).max() <= 1, (index, number)
            assert region_similarity(true, found) > 0.85, (index, number)
            assert 0.9 < prediction.confidence[number] <= 1


def test_flow_moves_keypoints_within_a_pixel():
    first = np.array([(24.25, 16.5), (30, 30)], np.float32)
    predictions = list(flow(clip(), points(*first.tolist())))
    assert predictions[0].keypoints.positions.tolist() == first.tolist()
    for index, prediction in enumerate(predictions):
        moved = first + np.array([STEP * index, 0])
        assert np.abs(prediction.keypoints.positions - moved).max() <= 1
        assert prediction.keypoints.names == ("a", "b")
        assert prediction.keypoints.skeleton == ((0, 1),)
        assert prediction.confidence == {"a": 1.0, "b": 1.0}


def test_a_joint_that_leaves_the_picture_is_lost_and_an_absent_one_stays_absent():
    texture = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3)).astype(np.uint8)
    wide = cv2.resize(texture, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    frames = [Frame(np.ascontiguousarray(wide[:, 8 * i : 8 * i + WIDTH]), i, i / 10) for i in range(4)]
    predictions = list(flow(frames, points((12, 20), (np.nan, np.nan), (70, 20))))
    there = [prediction.keypoints.present.tolist() for prediction in predictions]
    assert there == [[True, False, True]] * 2 + [[False, False, True]] * 2
    assert predictions[-1].confidence == {"a": 0.0, "b": 0.0, "c": 1.0}


def test_void_and_what_comes_in_from_outside_are_background():
    ids = square_ids(0)
    ids[:4] = 255
    ids[:, -8:] = 3
    wide = np.tile(picture(0), (1, 2, 1))
    frames = [Frame(np.ascontiguousarray(wide[:, 8 * i : 8 * i + WIDTH]), i, i / 10) for i in range(3)]
    last = list(flow(frames, Mask(ids)))[-1].mask
    assert last.objects == (3, 7)
    assert not last.ids[:, -8:].any()


def test_an_object_that_is_gone_has_no_confidence():
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:, :6] = 9
    wide = np.tile(picture(0), (1, 2, 1))
    frames = [Frame(np.ascontiguousarray(wide[:, 8 * i : 8 * i + WIDTH]), i, i / 10) for i in range(3)]
    last = list(flow(frames, Mask(ids)))[-1]
    assert last.mask.objects == ()
    assert last.confidence == {9: 0.0}


def test_frames_of_two_sizes_have_no_flow():
    frames = [*clip(2), Frame(picture(2)[:40], 2, 0.2)]
    with pytest.raises(InputError, match="96x40, the previous one 96x48"):
        list(flow(frames, Mask(square_ids(0))))


def test_a_mask_without_objects_stays_empty():
    empty = Mask(np.zeros((HEIGHT, WIDTH), np.uint8))
    assert [prediction.mask.objects for prediction in flow(clip(3), empty)] == [()] * 3


def test_baselines_stream():
    read = []

    def frames():
        for frame in clip():
            read.append(frame.index)
            yield frame

    for carry in (static, flow):
        read.clear()
        next(carry(frames(), Mask(square_ids(0))))
        assert read == [0]


def test_the_flow_does_not_depend_on_the_number_of_threads():
    before = cv2.getNumThreads()
    found = []
    try:
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            found.append([p.keypoints.positions for p in flow(clip(), points((24, 16), (30, 30)))])
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*found)
