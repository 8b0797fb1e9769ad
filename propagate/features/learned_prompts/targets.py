"""Crops of a picture, and the target attention of a learned prompt in them: a joint's place or an object's mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.errors import InputError
from propagate.geometry import pixels_to_grid
from propagate.types import Keypoints, Label, Mask

# how far inside a crop its point should lie, as a part of the crop's side (LDM_correspondences)
MARGIN = 0.15


class Crop(NamedTuple):
    """A box of whole pixels."""

    top: int
    height: int
    left: int
    width: int

    def of(self, pictures: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b y x"]:
        """Return the box of pictures, as a view."""
        return pictures[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def enlarged(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the box of pictures, upsampled to the pictures' size."""
        return resized(self.of(pictures), (pictures.shape[-2], pictures.shape[-1]))


def resized(pictures: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c y x"]:
    """Resize pictures bilinearly with half-pixel centers; return the same tensor if the size is the same."""
    if pictures.shape[-2:] == size:
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)


def whole(size: tuple[int, int]) -> Crop:
    """Return the box of a whole picture."""
    return Crop(0, size[0], 0, size[1])


def corners(size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the points (x, y) of a frame's first four crops, which together cover the frame."""
    height, width = size
    return [(0, 0), (0, height), (width, 0), (width, height)]


def random_crop(size: tuple[int, int], point: tuple[float, float], portion: float, generator: torch.Generator) -> Crop:
    """Draw a crop with a point (x, y) at least `MARGIN` of its side inside, as far as the picture's border permits.

    `portion` is the side of the crop as a part of the picture's. The generator draws x first.
    """
    (height, width), (x, y) = size, point
    crop_height, crop_width = max(int(height * portion), 1), max(int(width * portion), 1)
    left = _offset(x, width, crop_width, generator)
    return Crop(_offset(y, height, crop_height, generator), crop_height, left, crop_width)


def _offset(point: float, side: int, crop: int, generator: torch.Generator) -> int:
    margin, last = int(crop * MARGIN), side - crop
    least = min(max(0, point - crop + margin), last)
    most = min(max(0, point - margin), last)
    return int(torch.randint(int(least), int(most) + 1, (1,), generator=generator))


@dataclass(frozen=True)
class PointTarget:
    """A Gaussian of height 1 around a joint."""

    center: tuple[float, float]  # (x, y) in pixels of the picture; crops are drawn around it
    sigma: float  # in pixels of the enlarged crop

    def in_crop(self, crop: Crop, size: tuple[int, int]) -> Float[Tensor, "y x"]:
        """Return the target in a crop that is resized to a size."""
        height, width = size
        # as published, without the half pixel of geometry.py: with a crop of 93 % they differ by 0.04 pixels
        x = (self.center[0] - crop.left) / crop.width * width
        y = (self.center[1] - crop.top) / crop.height * height
        squares = (torch.arange(height) - y)[:, None] ** 2 + (torch.arange(width) - x) ** 2
        return torch.exp(-squares / (2 * self.sigma**2))


@dataclass(frozen=True, eq=False)
class MaskTarget:
    """The share of every pixel that an object covers, at the picture's size; not 0 everywhere."""

    cover: Float[Tensor, "h w"]

    @property
    def center(self) -> tuple[float, float]:
        """The object's center of mass."""
        rows, columns = (torch.arange(side, dtype=torch.float32) for side in self.cover.shape)
        mass = self.cover.sum()
        return float((self.cover.sum(0) * columns).sum() / mass), float((self.cover.sum(1) * rows).sum() / mass)

    def in_crop(self, crop: Crop, size: tuple[int, int]) -> Float[Tensor, "y x"]:
        """Return the target in a crop that is resized to a size."""
        return resized(crop.of(self.cover[None, None]), size)[0, 0]


Target = PointTarget | MaskTarget


def label_names(label: Label) -> tuple[str, ...]:
    """Return a name for each of the label's channels after the background: joint names or object ids."""
    return label.names if isinstance(label, Keypoints) else tuple(map(str, label.objects))


def targets_of(label: Label, frame_size: tuple[int, int], size: tuple[int, int], sigma: float) -> Mapping[str, Target]:
    """Return the targets of a frame's label in a picture of another size, by name; absent joints have none.

    `sigma` is that of a joint's Gaussian, as a part of the short side.

    Raises:
        InputError: a joint lies outside the frame.
    """
    targets: dict[str, Target] = {}
    if isinstance(label, Mask):
        for number in label.objects:
            inside = torch.from_numpy((label.ids == number).astype(np.float32))
            targets[str(number)] = MaskTarget(F.interpolate(inside[None, None], size, mode="area")[0, 0])
        return targets
    height, width = frame_size
    points = pixels_to_grid(label.positions.astype(np.float64), frame_size, size)
    for name, present, (x, y), point in zip(label.names, label.present, label.positions.tolist(), points, strict=True):
        if not present:
            continue
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(
                f"Keypoint {name} at ({x:g}, {y:g}) lies outside the {width}x{height} frame; no prompt can be learned "
                "for it.",
                "Move it inside, or mark it as absent.",
            )
        targets[name] = PointTarget((float(point[0]), float(point[1])), sigma * min(size))
    return targets
