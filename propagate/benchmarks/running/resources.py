"""Threads and memory of a process, and a description of the machine."""

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


def threads_per_job(jobs: int) -> int:
    """Return OMP_NUM_THREADS where it is set, else an equal share of the cores for each of `jobs` processes."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // jobs, 1)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Set the number of threads of torch and OpenCV in the block. Last digits of sums may depend on it."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def reset_peak_memory() -> None:
    """Reset the peak memory of this process, where the system can (Linux), and of its GPUs."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    for device in _used_gpus():
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory() -> int | None:
    """Return the largest resident size in bytes since `reset_peak_memory`; None where the system does not report it.

    It includes all that the process had loaded before, such as libraries and models of other methods.
    """
    return peak_bytes()


def peak_device_memory() -> int | None:
    """Return the most bytes of tensors on a GPU since `reset_peak_memory`; None without a GPU in use."""
    return max((torch.cuda.max_memory_allocated(device) for device in _used_gpus()), default=None)


def _used_gpus() -> range:
    """Return the indices of the GPUs; none before CUDA is initialized, which this must not do."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores, threads, load, GPUs."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
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
