"""What a process may use, and what it used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


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
    """Forget what this process needed so far, where the system can (Linux)."""
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")


def peak_memory() -> int | None:
    """Largest resident size of this process since `reset_peak_memory`, in bytes; None where the system does not say."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
