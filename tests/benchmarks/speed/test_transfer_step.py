from __future__ import annotations

import torch

from propagate.benchmarks.speed.transfer_step import MemoryState, Transfer
from propagate.propagation.affinity import normalize
from propagate.propagation.window import Rule, Window


def test_one_frame_is_new_at_each_step():
    kept, before = MemoryState(), None
    for _ in range(12):
        stamps = kept.next(5)["stamps"]
        assert len(set(stamps)) == 5
        if before:
            assert sum(one != other for one, other in zip(stamps, before, strict=True)) == 1
        before = stamps


def test_the_steps_labels_are_the_dense_ones_every_time():
    generator = torch.Generator().manual_seed(0)
    query, keys = (normalize(torch.randn(*n, 20, 6, 7, generator=generator)) for n in ((), (4,)))
    step = Transfer(query, keys, torch.rand(4, 2, 6, 7, generator=generator), Rule(Window("square", 2), 3, 0.1, "cut"))
    expected = step.dense()
    for _ in range(6):
        torch.testing.assert_close(step.ours(), expected, atol=1e-5, rtol=0)
