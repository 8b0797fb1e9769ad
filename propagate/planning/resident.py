"""What this process holds in memory, as the system counts it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.window import Window

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """Return the memory that this process holds now, in bytes; None where the system does not tell (Linux does)."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Return the most that this process has held so far, in bytes; None where the system does not tell."""
    return _status("VmHWM")


def load_compiled_loops() -> None:
    """Load the compiled loops that every run on a CPU calls, or compile them where this machine has not done so yet.

    A transfer of a few cells does it. A run would do it at its second frame; what they take can be measured now.
    """
    cells = normalize(torch.rand(4, 6, 6))
    propagate_labels(cells, cells[None], torch.ones(1, 1, 6, 6), window=Window("square", 2), top_k=2, temperature=0.1)


def _status(key: str) -> int | None:
    try:
        found = re.search(rf"{key}:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
