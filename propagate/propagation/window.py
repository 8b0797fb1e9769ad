"""What every backend of the transfer step needs: the window, the rule, and the guard that loads compiled kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

Ties = Literal["cut", "keep"]
Query = Float[Tensor, "c h w"]
Keys = Float[Tensor, "n c h w"]
Labels = Float[Tensor, "n l h w"]
Soft = Float[Tensor, "l h w"]


@dataclass(frozen=True)
class Window:
    """Which keys a query can reach, by the distance of the two cells."""

    shape: Literal["square", "circle"]  # |dy| <= radius and |dx| <= radius (DIFT, DINO); distance < radius (CRW)
    radius: float  # in grid cells
    exempt: tuple[int, ...] = ()  # context frames that are searched without a window (CRW's long memory)

    @property
    def reach(self) -> int:
        """The largest |dy| or |dx| inside; -1 if the window is empty."""
        return math.ceil(self.radius) - 1 if self.shape == "circle" else math.floor(self.radius)

    def contains(self, dy: Int[Tensor, "*rows"], dx: Int[Tensor, "*columns"]) -> Bool[Tensor, "*cells"]:
        """Return whether cells at these offsets, broadcast against each other, are inside."""
        if self.shape == "circle":
            return dy**2 + dx**2 < self.radius**2
        return (dy.abs() <= self.radius) & (dx.abs() <= self.radius)


@dataclass(frozen=True)
class Rule:
    """The options of a transfer step, see `propagate.propagation.affinity.propagate_labels`."""

    window: Window | None
    top_k: int
    temperature: float
    ties: Ties = "cut"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")


def split_frames(window: Window | None, frames: int) -> tuple[list[int], list[int]]:
    """Return the context frames that the window restricts, and those that are searched everywhere."""
    exempt = range(frames) if window is None else window.exempt
    return [f for f in range(frames) if f not in exempt], [f for f in range(frames) if f in exempt]


def grid_of(features: Tensor) -> tuple[int, int]:
    """Return (rows, columns) of a map, its last two axes."""
    return features.shape[-2], features.shape[-1]


def are_plain(device_type: str, *tensors: Tensor) -> bool:
    """Return whether kernels can read these tensors: no subclass, which may own no memory, all on one such device."""
    first = tensors[0].device
    return first.type == device_type and all(type(t) is Tensor and t.device == first for t in tensors)


def load_kernels(module: str) -> ModuleType | None:
    """Import a module of compiled kernels; None where its compiler (numba, Triton) cannot be imported."""
    try:
        return import_module(module)
    except (ImportError, OSError):
        return None
