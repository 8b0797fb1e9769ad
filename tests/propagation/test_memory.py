from __future__ import annotations

import pytest
import torch

from propagate.propagation.memory import MemoryBank, suitable_precision

GRID = (4, 5)


def frame(value: float, channels: int = 3) -> torch.Tensor:
    return torch.full((channels, *GRID), float(value))


def label(value: float, kinds: int = 2) -> torch.Tensor:
    return torch.full((kinds, *GRID), float(value))


def filled(n_last: int, predictions: int, anchors: int = 1, **older: int) -> MemoryBank:
    bank = MemoryBank(n_last, anchors=anchors, **older)
    for number in range(anchors):
        bank.add_anchor(frame(-number), label(-number))
    for number in range(1, predictions + 1):
        bank.add_prediction(frame(number), label(number))
    return bank


@pytest.mark.parametrize(("predictions", "held"), [(0, [0]), (2, [0, 1, 2]), (3, [0, 1, 2, 3]), (7, [0, 5, 6, 7])])
def test_keeps_the_anchor_and_the_last_predictions(predictions, held):
    bank = filled(3, predictions)
    keys, labels = bank.context()
    assert sorted(keys[:, 0, 0, 0].tolist()) == held
    assert sorted(labels[:, 0, 0, 0].tolist()) == held
    assert len(bank) == len(held)


def test_an_anchor_added_later_stays_for_ever():
    bank = filled(2, 3)
    bank.add_anchor(frame(-1), label(-1))
    for number in range(4, 9):
        bank.add_prediction(frame(number), label(number))
    keys, _ = bank.context()
    assert sorted(keys[:, 0, 0, 0].tolist()) == [-1, 0, 7, 8]
    assert bank.anchors == 2


def test_room_for_anchors_that_have_not_come_is_not_context():
    bank = MemoryBank(2, anchors=3)
    bank.add_anchor(frame(5), label(5))
    bank.add_prediction(frame(6), label(6))
    keys, labels = bank.context()
    assert keys[:, 0, 0, 0].tolist() == [5, 6]
    assert labels.shape == (2, 2, *GRID)


@pytest.mark.parametrize(("dtype", "feature_bytes"), [(torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)])
def test_bytes_are_those_of_the_formula_from_the_first_frame_on(dtype, feature_bytes):
    bank = MemoryBank(4, anchors=2, dtype=dtype)
    assert bank.nbytes == 0
    bank.add_anchor(frame(1, channels=6), label(1, kinds=3))
    expected = (2 + 4) * GRID[0] * GRID[1] * (6 * feature_bytes + 3 * 4)
    assert bank.nbytes == expected
    for number in range(20):
        bank.add_prediction(frame(number, channels=6), label(number, kinds=3))
    assert bank.nbytes == expected


def test_context_is_a_view_in_the_layout_the_transfer_wants():
    bank = filled(3, 3)
    keys, _ = bank.context()
    assert keys.is_contiguous(memory_format=torch.channels_last)
    before = keys.data_ptr()
    bank.add_prediction(frame(9), label(9))
    assert bank.context()[0].data_ptr() == before


def test_without_a_ring_only_anchors_are_kept():
    bank = filled(0, 5)
    assert bank.context()[0][:, 0, 0, 0].tolist() == [0]


def test_a_frame_of_another_grid_is_refused():
    bank = filled(2, 1)
    with pytest.raises(ValueError, match=r"do not fit a memory of \(3, 4, 5\)"):
        bank.add_prediction(torch.zeros(3, 4, 6), torch.zeros(2, 4, 6))
    with pytest.raises(ValueError, match="do not fit"):
        bank.add_prediction(frame(0), label(0, kinds=3))


def test_an_empty_bank_says_what_is_missing():
    with pytest.raises(ValueError, match="add an anchor first"):
        MemoryBank(2).context()


@pytest.mark.parametrize(("n_last", "anchors"), [(-1, 1), (3, 0)])
def test_impossible_sizes(n_last, anchors):
    with pytest.raises(ValueError, match="n_last must be at least 0 and anchors at least 1"):
        MemoryBank(n_last, anchors=anchors)


def held(bank: MemoryBank) -> list[float]:
    keys, labels = bank.context()
    assert torch.equal(keys[:, 0, 0, 0], labels[:, 0, 0, 0])
    assert len(bank) == len(keys)
    return sorted(keys[:, 0, 0, 0].tolist())


def test_which_older_frames_are_held_at_each_step():
    """Two of the last, and of those before the last two whose number is a multiple of 3."""
    expected = {
        0: [0],
        1: [0, 1],
        2: [0, 1, 2],
        3: [0, 2, 3],
        4: [0, 3, 4],
        5: [0, 3, 4, 5],  # 3 leaves the ring and stays
        6: [0, 3, 5, 6],
        7: [0, 3, 6, 7],
        8: [0, 3, 6, 7, 8],
        10: [0, 3, 6, 9, 10],
        11: [0, 6, 9, 10, 11],  # 9 leaves the ring, and 3 makes way
        14: [0, 9, 12, 13, 14],
    }
    for predictions, numbers in expected.items():
        assert held(filled(2, predictions, n_older=2, older_every=3)) == numbers


@pytest.mark.parametrize("predictions", range(12))
@pytest.mark.parametrize(("n_last", "n_older", "every"), [(3, 2, 1), (0, 3, 1), (0, 2, 4), (1, 4, 2), (4, 0, 2)])
def test_older_frames_by_their_definition(predictions, n_last, n_older, every):
    last = [number for number in range(1, predictions + 1) if number > predictions - n_last]
    before = [number for number in range(1, predictions - n_last + 1) if number % every == 0]
    assert held(filled(n_last, predictions, n_older=n_older, older_every=every)) == [
        0, *before[max(len(before) - n_older, 0):], *last
    ]  # fmt: skip


def test_older_frames_one_apart_are_a_longer_ring():
    for predictions in range(10):
        assert held(filled(3, predictions, n_older=2, older_every=1)) == held(filled(5, predictions))


def test_memory_with_older_frames_is_taken_at_once_and_does_not_grow():
    bank = filled(2, 0, n_older=3, older_every=2)
    before = bank.nbytes
    assert before == (1 + 2 + 3) * GRID[0] * GRID[1] * (3 * 4 + 2 * 4)
    pointer = bank.context()[0].data_ptr()
    for number in range(40):
        bank.add_prediction(frame(number), label(number))
    assert bank.nbytes == before
    assert bank.context()[0].data_ptr() == pointer


def test_an_anchor_in_mid_video_leaves_the_older_frames():
    bank = filled(2, 5, n_older=2, older_every=3)
    bank.add_anchor(frame(-1), label(-1))
    assert held(bank) == [-1, 0, 3, 4, 5]
    for number in range(6, 9):
        bank.add_prediction(frame(number), label(number))
    assert held(bank) == [-1, 0, 3, 6, 7, 8]


@pytest.mark.parametrize(("n_older", "every"), [(-1, 5), (2, 0)])
def test_impossible_older_frames(n_older, every):
    with pytest.raises(ValueError, match="n_older must be at least 0 and older_every at least 1"):
        MemoryBank(2, n_older=n_older, older_every=every)


def test_half_precision_is_kept_on_a_gpu_alone():
    precisions = [suitable_precision(torch.device(device)) for device in ("cuda", "cuda:1", "cpu", "mps")]
    assert precisions == [torch.float16, torch.float16, torch.float32, torch.float32]


def test_a_frames_stamp_stays_as_long_as_what_is_stored_of_it():
    """Whatever the order of writing, making room and moving, equal stamps mean equal features."""
    bank = MemoryBank(3, anchors=1, n_older=2, older_every=2)
    seen: dict[int, torch.Tensor] = {}
    for frame in range(14):
        features = torch.full((2, 3, 3), float(frame))
        add = bank.add_anchor if frame in (0, 4, 9) else bank.add_prediction
        add(features, torch.zeros(1, 3, 3))
        keys, _ = bank.context()
        assert len(bank.stamps) == len(set(bank.stamps)) == len(keys)
        for stamp, key in zip(bank.stamps, keys, strict=True):
            assert torch.equal(seen.setdefault(stamp, key.clone()), key)


def test_one_step_changes_one_stamp():
    bank = MemoryBank(3)
    bank.add_anchor(torch.zeros(2, 3, 3), torch.zeros(1, 3, 3))
    before: set[int] = set()
    for _ in range(8):
        bank.add_prediction(torch.zeros(2, 3, 3), torch.zeros(1, 3, 3))
        assert len(set(bank.stamps) - before) <= (1 if before else 2)
        before = set(bank.stamps)
