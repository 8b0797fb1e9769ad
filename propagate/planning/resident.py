"""Memory of this process, as the system reports it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.window import Window


def resident_bytes() -> int | None:
    """Return the memory of this process now, in bytes; None where the system does not report it (Linux does)."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Return the peak memory of this process, in bytes; None where the system does not report it."""
    return _status("VmHWM")


def load_compiled_loops() -> None:
    """Load or compile the loops of the CPU backend by a tiny transfer, so that their memory can be measured."""
    cells = normalize(torch.rand(4, 6, 6))
    propagate_labels(cells, cells[None], torch.ones(1, 1, 6, 6), window=Window("square", 2), top_k=2, temperature=0.1)


def _status(key: str) -> int | None:
    try:
        found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
