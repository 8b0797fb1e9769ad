from __future__ import annotations

import pytest
import torch

from propagate.memory import MemoryBank

GRID = (4, 5)


def frame(value: float, channels: int = 3) -> torch.Tensor:
    return torch.full((channels, *GRID), float(value))


def label(value: float, kinds: int = 2) -> torch.Tensor:
    return torch.full((kinds, *GRID), float(value))


def filled(n_last: int, predictions: int, anchors: int = 1) -> MemoryBank:
    bank = MemoryBank(n_last, anchors=anchors)
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
