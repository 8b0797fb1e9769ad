"""What the attention to a learned prompt should look like: a joint's place or an object's mask, in any crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.errors import InputError
from propagate.features.learned_prompts.crops import Crop, resized
from propagate.geometry import pixels_to_grid
from propagate.types import Keypoints, Label, Mask


@runtime_checkable
class Target(Protocol):
    """The attention that is wanted."""

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) in pixels of the picture, which crops are to keep."""
        ...

    def in_crop(self, crop: Crop, size: tuple[int, int]) -> Float[Tensor, "y x"]:
        """The target in a crop that was brought to a size."""
        ...


@dataclass(frozen=True)
class PointTarget:
    """A Gaussian of height 1.

    Attributes:
        center: (x, y) in pixels of the picture.
        sigma: in pixels of the enlarged crop, whatever the crop's own size.
    """

    center: tuple[float, float]
    sigma: float

    def in_crop(self, crop: Crop, size: tuple[int, int]) -> Float[Tensor, "y x"]:
        """See `Target`."""
        height, width = size
        # as published, without the half pixel of geometry.py: at a crop of 93 % they are 0.04 pixels apart
        x = (self.center[0] - crop.left) / crop.width * width
        y = (self.center[1] - crop.top) / crop.height * height
        squares = (torch.arange(height) - y)[:, None] ** 2 + (torch.arange(width) - x) ** 2
        return torch.exp(-squares / (2 * self.sigma**2))


@dataclass(frozen=True, eq=False)
class MaskTarget:
    """The share of every pixel that an object covers.

    Attributes:
        cover: at the picture's size, in [0, 1]; somewhere above 0.
    """

    cover: Float[Tensor, "h w"]

    @property
    def center(self) -> tuple[float, float]:
        """The object's center of mass."""
        rows, columns = (torch.arange(side, dtype=torch.float32) for side in self.cover.shape)
        mass = self.cover.sum()
        return float((self.cover.sum(0) * columns).sum() / mass), float((self.cover.sum(1) * rows).sum() / mass)

    def in_crop(self, crop: Crop, size: tuple[int, int]) -> Float[Tensor, "y x"]:
        """See `Target`."""
        return resized(crop.of(self.cover[None, None]), size)[0, 0]


def label_names(label: Label) -> tuple[str, ...]:
    """A name per channel of the label behind the background: the joints', or the objects' ids."""
    return label.names if isinstance(label, Keypoints) else tuple(map(str, label.objects))


def targets_of(label: Label, frame_size: tuple[int, int], size: tuple[int, int], sigma: float) -> Mapping[str, Target]:
    """The targets of a label, by name; an absent joint has none.

    Args:
        label: of a frame.
        frame_size: (height, width) of the frame.
        size: (height, width) at which it is looked at.
        sigma: of a joint's Gaussian, as a part of the short side.

    Raises:
        InputError: a joint lies outside the frame.
    """
    if isinstance(label, Mask):
        return {str(number): MaskTarget(_cover(label, number, size)) for number in label.objects}
    _check_inside(label, frame_size)
    points = pixels_to_grid(label.positions.astype(np.float64), frame_size, size)
    return {
        name: PointTarget((float(x), float(y)), sigma * min(size))
        for name, present, (x, y) in zip(label.names, label.present, points, strict=True)
        if present
    }


def _cover(label: Mask, number: int, size: tuple[int, int]) -> Float[Tensor, "h w"]:
    inside = torch.from_numpy((label.ids == number).astype(np.float32))
    cover: Tensor = F.interpolate(inside[None, None], size, mode="area")[0, 0]
    return cover


def _check_inside(label: Keypoints, frame_size: tuple[int, int]) -> None:
    height, width = frame_size
    for name, present, (x, y) in zip(label.names, label.present, label.positions.tolist(), strict=True):
        if present and not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(
                f"Keypoint {name} at ({x:g}, {y:g}) lies outside the {width}x{height} frame; no prompt can be learned "
                "for it.",
                "Move it inside, or mark it as absent.",
            )
