"""What a process may use, and what it used."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import torch

from propagate.planning.resident import peak_bytes

_CLEAR_REFS = Path("/proc/self/clear_refs")
_PROCESSOR = Path("/proc/cpuinfo")


def threads_per_job(jobs: int) -> int:
    """Threads for each of `jobs` processes: OMP_NUM_THREADS where it is set, else an equal share of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // jobs, 1)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """While the block runs torch and OpenCV take this many threads, on which the last digits of a sum may depend."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def reset_peak_memory() -> None:
    """Forget what this process needed so far, where the system can (Linux), and what it needed of the GPUs."""
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")
    for device in _used_gpus():
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory() -> int | None:
    """Largest resident size of this process since `reset_peak_memory`, in bytes; None where the system does not say.

    What the process had loaded before, libraries and models of other methods among it, counts: it is still there.
    """
    return peak_bytes()


def peak_device_memory() -> int | None:
    """The most bytes that tensors of this process took on a GPU since `reset_peak_memory`; None where there is none."""
    return max((torch.cuda.max_memory_allocated(device) for device in _used_gpus()), default=None)


def _used_gpus() -> range:
    """Numbers of the GPUs; none before the first use, which asking must not be."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]


def machine() -> dict[str, Any]:
    """What a time depends on: processor, cores, threads, what else the machine is doing, GPUs."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", _PROCESSOR.read_text())
    except OSError:
        found = None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": platform.platform(),
        "processor": found[1] if found else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": None if load is None else round(load, 2),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }
