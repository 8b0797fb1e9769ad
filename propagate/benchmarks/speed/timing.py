"""Time blocks of work and compare them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per frame of one run: wall clock, and CPU of all threads, which other programs disturb less."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """Speed-up over paired runs: the median and the range."""

    median: float
    low: float
    high: float


def ratio(slow: Iterable[float], fast: Iterable[float]) -> Ratio:
    """Return the speed-up of `fast` over paired runs."""
    values = [one / other for one, other in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))


@contextmanager
def timed(frames: int, device: torch.device | None, timings: list[Timing]) -> Iterator[None]:
    """Append the time of the block per frame, including pending work of the GPU."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    synchronize(device)
    timings.append(Timing((time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames))


def synchronize(device: torch.device | None) -> None:
    """Wait for pending work of the GPU."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()
