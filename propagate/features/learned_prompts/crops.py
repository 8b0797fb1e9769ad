"""Crops of a picture, each brought back to the picture's size: several looks at one frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# of a crop's side: that far inside a crop the point that it is for should lie (LDM_correspondences)
MARGIN = 0.15


class Crop(NamedTuple):
    """A box of whole pixels."""

    top: int
    height: int
    left: int
    width: int

    def of(self, pictures: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b y x"]:
        """The part of the pictures that lies in the box; a view."""
        return pictures[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def enlarged(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The part that lies in the box, at the pictures' own size again (bilinear)."""
        return resized(self.of(pictures), (pictures.shape[-2], pictures.shape[-1]))


def resized(pictures: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c y x"]:
    """Bilinear with half-pixel centers; the same tensor where the size is the same."""
    if pictures.shape[-2:] == size:
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)


def whole(size: tuple[int, int]) -> Crop:
    """The box of a whole picture."""
    return Crop(0, size[0], 0, size[1])


def corners(size: tuple[int, int]) -> list[tuple[float, float]]:
    """The points (x, y) that the first four crops of a frame are made for: together they cover it."""
    height, width = size
    return [(0, 0), (0, height), (width, 0), (width, height)]


def random_crop(size: tuple[int, int], point: tuple[float, float], portion: float, generator: torch.Generator) -> Crop:
    """A random crop that has a point at least `MARGIN` of its side inside, as far as the picture's border lets it.

    Args:
        size: (height, width) of the picture.
        point: (x, y) in pixels.
        portion: of either side of the picture that the crop has.
        generator: gives the place, x first.
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
