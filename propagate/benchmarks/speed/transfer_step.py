"""The transfer step against its dense formulation: times on the same tensors, and what each takes of memory."""

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
    """What the cost of a step depends on beside its rule."""

    frames: int
    channels: int
    labels: int
    grid: tuple[int, int]
    keys_dtype: torch.dtype
    device: torch.device


class Kept:
    """What a memory keeps between its steps. At each of them one frame is new, as the stamps say, whatever the keys."""

    def __init__(self) -> None:
        self._rounded = RoundedKeys()
        self._step = 0

    def next(self, frames: int) -> dict[str, Any]:
        """Options of `propagate_labels` for the next step."""
        self._step += 1
        newest = [self._step - (self._step - slot) % frames for slot in range(frames)]  # of each slot, in turns
        return {"rounded": self._rounded, "stamps": tuple(step + frames for step in newest)}


@dataclass(frozen=True, eq=False)
class Transfer:
    """One transfer step, ready to be taken as often as wanted."""

    query: Float[Tensor, "c h w"]
    keys: Float[Tensor, "n c h w"]
    labels: Float[Tensor, "n l h w"]
    rule: Rule
    kept: Kept = field(default_factory=Kept)

    @property
    def shape(self) -> Shape:
        """Of its tensors."""
        frames, channels, rows, columns = self.keys.shape
        return Shape(frames, channels, self.labels.shape[1], (rows, columns), self.keys.dtype, self.keys.device)

    def ours(self, ties: Ties | None = None) -> Float[Tensor, "l h w"]:
        """The labels as the program finds them."""
        rule = self.rule
        return propagate_labels(
            self.query,
            self.keys,
            self.labels,
            window=rule.window,
            top_k=rule.top_k,
            temperature=rule.temperature,
            ties=ties or rule.ties,
            **self.kept.next(len(self.keys)),
        )

    def dense(self) -> Float[Tensor, "l h w"]:
        """The labels as the papers' scripts find them."""
        rule = self.rule
        return dense_transfer(
            self.query, self.keys, self.labels, window=rule.window, top_k=rule.top_k, temperature=rule.temperature
        )


@dataclass(frozen=True)
class DenseComparison:
    """The transfer against the dense formulation.

    Attributes:
        ours, dense: seconds for a frame, run by run; the same run of both came one after the other.
        difference: the largest one between their labels, ties being kept by both.
        ours_memory, dense_memory: bytes that a frame takes at most beside its inputs; None where nobody says.
    """

    ours: tuple[Timing, ...]
    dense: tuple[Timing, ...]
    difference: float
    ours_memory: int | None = None
    dense_memory: int | None = None


def random_transfer(shape: Shape, rule: Rule) -> Transfer:
    """A step on random features and labels; the same arguments give the same numbers."""
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.rand(*sizes, *shape.grid, generator=generator).to(shape.device)

    keys = normalize(random(shape.frames, shape.channels)).to(shape.keys_dtype)
    labels = random(shape.frames, shape.labels)
    return Transfer(normalize(random(shape.channels)), keys.to(memory_format=torch.channels_last), labels, rule)


def against_dense(transfer: Transfer, repeat: int) -> DenseComparison:
    """Both ways on the same tensors, in turns.

    Args:
        transfer: the step.
        repeat: runs of both, after one that is not timed.
    """
    # the dense formulation keeps ties, so that only this can be compared to the digit
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
    """Bytes that a step takes at most beside its inputs, where it runs.

    To be asked in a fresh process: in another one, what was freed before hides it.

    Returns:
        None where nobody says.
    """
    measure = peak_device_memory if shape.device.type == "cuda" else peak_memory
    # what is loaded and compiled on the way is not the step's
    _take(way, random_transfer(replace(shape, grid=(4, 4)), rule))
    transfer = random_transfer(shape, rule)
    synchronize(shape.device)
    reset_peak_memory()
    before = measure()
    _take(way, transfer)
    after = measure()
    return None if before is None or after is None else after - before


def _take(way: Way, transfer: Transfer) -> None:
    if way == "ours":
        transfer.ours()
    else:
        transfer.dense()
    synchronize(transfer.query.device)
