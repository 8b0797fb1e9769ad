from __future__ import annotations

import pytest
import torch

from propagate.benchmarks.speed import timing
from propagate.benchmarks.speed.timing import Timing, ratio, timed
from propagate.benchmarks.speed.transfer_step import Shape, against_dense, random_transfer
from propagate.propagation.window import Rule, Window

SHAPE = Shape(frames=3, channels=8, labels=2, grid=(6, 9), keys_dtype=torch.float32, device=torch.device("cpu"))


def test_a_ratio_is_that_of_runs_that_came_one_after_the_other():
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_the_time_is_shared_by_the_frames(monkeypatch):
    monkeypatch.setattr(timing.time, "perf_counter", iter([10.0, 14.0]).__next__)
    monkeypatch.setattr(timing.time, "process_time", iter([1.0, 7.0]).__next__)
    found: list[Timing] = []
    with timed(4, None, found):
        pass
    assert found == [Timing(wall=1.0, cpu=1.5)]


@pytest.mark.parametrize("ties", ["cut", "keep"])
def test_both_ways_find_the_same_labels(ties):
    transfer = random_transfer(SHAPE, Rule(Window("square", 2), 4, 0.1, ties))
    found = against_dense(transfer, repeat=2)
    assert found.difference < 1e-5
    assert len(found.ours) == len(found.dense) == 2


def test_a_random_step_has_the_shape_that_was_asked_for():
    shape = Shape(2, 5, 3, (4, 6), torch.float16, torch.device("cpu"))
    rule = Rule(None, 3, 0.2, "cut")
    transfer = random_transfer(shape, rule)
    assert transfer.shape == shape
    assert transfer.ours().shape == (3, 4, 6)
    torch.testing.assert_close(random_transfer(shape, rule).keys, transfer.keys)
