"""Clocks: what a piece of work takes, and how two of them compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per frame of one run.

    Attributes:
        wall: as the clock on the wall shows.
        cpu: of all threads of this process together, which other programs disturb less.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """How many times as fast, by runs that came one after the other: the median, and from where to where."""

    median: float
    low: float
    high: float


def ratio(slow: Iterable[float], fast: Iterable[float]) -> Ratio:
    """Times as fast, of paired runs."""
    values = [one / other for one, other in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))


@contextmanager
def timed(frames: int, device: torch.device | None, timings: list[Timing]) -> Iterator[None]:
    """Append the time of the block, divided by the number of frames; what a GPU was given to do is waited for."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    synchronize(device)
    timings.append(Timing((time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames))


def synchronize(device: torch.device | None) -> None:
    """Wait for what a GPU was given to do."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()
