"""Time and memory of the transfer step and its dense formulation, on the same tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.benchmarks.running.resources import peak_device_memory, peak_memory, reset_peak_memory
from propagate.benchmarks.speed.timing import Timing, synchronize, timed
from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.cpu.keys import RoundedKeys
from propagate.propagation.dense import dense_transfer
from propagate.propagation.window import Rule, Ties

Way = Literal["ours", "dense"]


@dataclass(frozen=True)
class Shape:
    """Sizes, precision and device of a step."""

    frames: int
    channels: int
    labels: int
    grid: tuple[int, int]
    keys_dtype: torch.dtype
    device: torch.device


class MemoryState:
    """The state of a memory between steps: rounded keys, and stamps that mark one new frame per step."""

    def __init__(self) -> None:
        self._rounded = RoundedKeys()
        self._step = 0

    def next(self, frames: int) -> dict[str, Any]:
        """Return options of `propagate_labels` for the next step."""
        self._step += 1
        newest = (self._step - (self._step - slot) % frames for slot in range(frames))  # of each slot, in turns
        return {"rounded": self._rounded, "stamps": tuple(step + frames for step in newest)}


@dataclass(frozen=True, eq=False)
class Transfer:
    """One transfer step, which can be repeated."""

    query: Float[Tensor, "c h w"]
    keys: Float[Tensor, "n c h w"]
    labels: Float[Tensor, "n l h w"]
    rule: Rule
    state: MemoryState = field(default_factory=MemoryState)

    @property
    def shape(self) -> Shape:
        """Shape of its tensors."""
        frames, channels, rows, columns = self.keys.shape
        return Shape(frames, channels, self.labels.shape[1], (rows, columns), self.keys.dtype, self.keys.device)

    def ours(self, ties: Ties | None = None) -> Float[Tensor, "l h w"]:
        """Transfer labels with this program's backend."""
        options = vars(self.rule) | {"ties": ties or self.rule.ties}
        return propagate_labels(self.query, self.keys, self.labels, **options, **self.state.next(len(self.keys)))

    def dense(self) -> Float[Tensor, "l h w"]:
        """Transfer labels like the papers' scripts."""
        rule = self.rule
        return dense_transfer(
            self.query, self.keys, self.labels, window=rule.window, top_k=rule.top_k, temperature=rule.temperature
        )


@dataclass(frozen=True)
class DenseComparison:
    """The transfer compared with the dense formulation."""

    # ours, dense: seconds per frame of paired runs
    ours: tuple[Timing, ...]
    dense: tuple[Timing, ...]
    difference: float  # largest difference between their labels, where both keep ties
    # ours_memory, dense_memory: peak bytes of a step without its inputs; None where the system does not report them
    ours_memory: int | None = None
    dense_memory: int | None = None


def random_transfer(shape: Shape, rule: Rule) -> Transfer:
    """Return a step on random features and labels; the same arguments give the same numbers."""
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.rand(*sizes, *shape.grid, generator=generator).to(shape.device)

    keys = normalize(random(shape.frames, shape.channels)).to(shape.keys_dtype)
    labels = random(shape.frames, shape.labels)
    return Transfer(normalize(random(shape.channels)), keys.to(memory_format=torch.channels_last), labels, rule)


def against_dense(transfer: Transfer, repeat: int) -> DenseComparison:
    """Time both ways in turns on the same tensors, `repeat` times after a warm-up."""
    # the dense formulation keeps ties, so only this can be compared exactly
    difference = float((transfer.ours("keep") - transfer.dense()).abs().max())
    transfer.ours()
    ours, dense = list[Timing](), list[Timing]()
    for _ in range(repeat):
        with timed(1, transfer.query.device, ours):
            transfer.ours()
        with timed(1, transfer.query.device, dense):
            transfer.dense()
    return DenseComparison(tuple(ours), tuple(dense), difference)


def memory_of(way: Way, shape: Shape, rule: Rule) -> int | None:
    """Return the peak bytes of a step without its inputs; None where the system does not report them.

    Call this in a fresh process: memory that was freed before would hide the step's.
    """
    measure = peak_device_memory if shape.device.type == "cuda" else peak_memory
    # exclude memory of loading and compiling
    _take(way, random_transfer(replace(shape, grid=(4, 4)), rule))
    transfer = random_transfer(shape, rule)
    synchronize(shape.device)
    reset_peak_memory()
    before = measure()
    _take(way, transfer)
    after = measure()
    return None if before is None or after is None else after - before


def _take(way: Way, transfer: Transfer) -> None:
    step = transfer.ours if way == "ours" else transfer.dense
    step()
    synchronize(transfer.query.device)
