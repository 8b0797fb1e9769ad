"""The small types of the transfer step that every backend needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Int
from torch import Tensor

Ties = Literal["cut", "keep"]


@dataclass(frozen=True)
class Window:
    """Which keys a query can reach, by the distance of the two cells.

    Attributes:
        shape: "square": |dy| <= radius and |dx| <= radius (DIFT, DINO); "circle": Euclidean distance < radius (CRW).
        radius: in grid cells.
        exempt: context frames that the window does not bind (CRW's long memory).
    """

    shape: Literal["square", "circle"]
    radius: float
    exempt: tuple[int, ...] = ()

    @property
    def reach(self) -> int:
        """The largest |dy| or |dx| that lies inside; -1 if nothing does."""
        return math.ceil(self.radius) - 1 if self.shape == "circle" else math.floor(self.radius)

    def contains(self, dy: Int[Tensor, "*rows"], dx: Int[Tensor, "*columns"]) -> Bool[Tensor, "*cells"]:
        """Whether cells at these offsets, which are broadcast against each other, are inside."""
        if self.shape == "circle":
            return dy**2 + dx**2 < self.radius**2
        return (dy.abs() <= self.radius) & (dx.abs() <= self.radius)
