"""The mask codec: a soft label per object on the grid, and back to a mask at the frame's own size.

Resampling works one axis at a time, as `rows @ map @ columns.T`: a map can be averaged exactly at any ratio of sizes,
and a part of a picture can be upsampled alone with the same numbers as in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from propagate.labels.annotated import AnnotatedMasks, SoftLabels
from propagate.labels.color_sides import REACH, Box, TopTwo, color_evidence, reduction_of
from propagate.threads import on_one_thread
from propagate.types import BACKGROUND, VOID, Frame, Mask, Prediction

Upsampling = Literal["bicubic", "bilinear"]

# maximum in torch's bicubic weights in two dimensions: 2 * 1.1875 * 0.1875, halfway between cells
NEGATIVE_WEIGHT = 0.4453125
# error of float32 upsampling
ROUNDING = 1e-5


class MaskCodec(AnnotatedMasks):
    """Masks of any ids to soft labels and back.

    Channel 0 is the background, channel i + 1 the object `ids[i]`. Void pixels count for no channel; a cell of void
    only is zero in all of them.

    Encoding to the grid and back, at stride 8, scores (J&F on DAVIS-2016 frames, per cent; a perfect mask has 100):
    area 97.1, blend 95.8, nearest 94.4, all with bicubic upsampling.

    Args:
        ids: the objects, 1 to 254 each; in a tie the first one wins.
        encode: "area": the share of a cell that the object covers (of the part that is not void).
            "nearest": 1 for the object at the cell's center pixel; an object that no center hits is lost.
            "blend": the mean of the two; where the center is void, the area only.
            With area and blend, an object without a label of 0.5 gets the whole cell that it covers most (the first
            object, if several lie inside one cell).
        upsample: interpolation to the frame's own size. "guided": bicubic, and the colors of the frame decide where
            that leaves an outline undecided, see `propagate.labels.color_sides`.
        stretch: stretch each channel from its minimum and maximum on the grid to 0 and 1 before channels are compared.
            It restores the size of an object with a weak label. A constant channel stays.
        vanish: an object with a label below this everywhere has left: it is not stretched and not predicted. A
            background below it is not stretched, either.
    """

    def __init__(
        self,
        ids: tuple[int, ...],
        *,
        encode: Literal["area", "blend", "nearest"] = "blend",
        upsample: Literal["guided"] | Upsampling = "bicubic",
        stretch: bool = True,
        vanish: float = 0.1,
    ) -> None:
        self.ids = ids
        self.encoding = encode
        self.guided = upsample == "guided"
        self.upsampling: Upsampling = "bicubic" if upsample == "guided" else upsample
        self.stretch = stretch
        self.vanish = vanish

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> SoftLabels:
        """Return the (1 + objects, h, w) float32 soft labels of a mask, which covers the frame at any size.

        A cell that is not all void sums to 1, except with "nearest" at a void center.
        """
        self.check(label)
        centers = sample_nearest(label.ids, grid)
        if self.encoding == "nearest":
            return one_hot(centers, self.ids)
        soft = self._area(label.ids, grid)
        if self.encoding == "blend":
            soft = torch.where(torch.from_numpy(centers == VOID), soft, (soft + one_hot(centers, self.ids)) / 2)
        _keep_small_objects(soft)
        return soft

    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Return the mask at the frame's own size, and a confidence per object.

        A pixel belongs to the channel with the greatest upsampled label; an object's must be above 0 and above the
        background's. The confidence of an object is the mean of its upsampled label, before stretching, over its
        pixels, clipped to [0, 1]; 0 without pixels. A sharp label is near 1 inside and 0.5 at the outline, so large
        objects reach values above 0.9 and small ones less.

        Computed on the CPU, on the part of the frame that objects reach, with three float32 and three uint8 per pixel.
        """
        soft = soft.detach().to("cpu", torch.float32)
        # stretching the grid equals stretching the upsampled map, since the weights of a pixel sum to 1
        lowest, highest = soft.amin((1, 2)), soft.amax((1, 2))
        stretches = (highest > lowest) & (highest >= self.vanish) & self.stretch
        lowest, spread = torch.where(stretches, lowest, 0), torch.where(stretches, highest - lowest, 1)
        stretched = (soft - lowest[:, None, None]) / spread[:, None, None]
        present = [i for i in range(1, len(soft)) if float(highest[i]) >= self.vanish]
        ids, sums = self._largest(stretched, present, frame)
        counts = np.bincount(ids.ravel(), minlength=VOID + 1)
        confidence = {}
        for channel, object_id in enumerate(self.ids, start=1):
            mean = sums[object_id] / max(counts[object_id], 1) * float(spread[channel]) + float(lowest[channel])
            confidence[object_id] = float(np.clip(mean, 0, 1)) if counts[object_id] else 0.0
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=Mask(ids), confidence=confidence)

    @on_one_thread
    def _area(self, ids: UInt8[ndarray, "y x"], grid: tuple[int, int]) -> SoftLabels:
        rows, columns = (area_matrix(pixels, cells) for pixels, cells in zip(ids.shape, grid, strict=True))

        def covered(pixels: Bool[ndarray, "y x"]) -> Float[Tensor, "h w"]:
            return rows @ torch.from_numpy(pixels.astype(np.float32)) @ columns.T

        known = covered(ids != VOID)
        known = torch.where(known > 0, known, 1)  # a cell of void only becomes 0 / 1
        return torch.stack([covered(ids == i) / known for i in (BACKGROUND, *self.ids)])

    def _largest(self, soft: SoftLabels, present: list[int], frame: Frame) -> tuple[ndarray, ndarray]:
        """Return the id of the greatest channel per pixel, and per id the sum of its values over its pixels."""
        ids, size, grid = np.zeros(frame.size, np.uint8), frame.size, soft[0].shape
        boxes = _contended_boxes(soft, present)
        if not boxes:
            return ids, np.zeros(VOID + 1)
        if self.guided:
            boxes = {channel: _within_reach(box, grid) for channel, box in boxes.items()}
        rows, columns = zip(*boxes.values(), strict=True)
        whole = (
            slice(min(side.start for side in rows), max(side.stop for side in rows)),
            slice(min(side.start for side in columns), max(side.stop for side in columns)),
        )
        region = _pixels_of(whole, grid, size)
        inside = {channel: _relative(_pixels_of(box, grid, size), region) for channel, box in boxes.items()}
        top = TopTwo(self._upsample(soft[BACKGROUND], whole, size).clip(min=0))
        for channel, box in boxes.items():
            top.add(self.ids[channel - 1], inside[channel], self._upsample(soft[channel], box, size))
        if self.guided:
            cell = size[0] / grid[0], size[1] / grid[1]
            for channel, box in boxes.items():
                object_id, part = self.ids[channel - 1], inside[channel]
                margin = top.margin(object_id, part, self._upsample(soft[channel], box, size))
                pixels = frame.pixels[region][part]
                top.add_evidence(object_id, part, color_evidence(pixels, margin, cell, reduction_of(size)))
            top.apply_evidence()
        ids[region] = top.owner
        return ids, np.bincount(top.owner.ravel(), weights=top.greatest.ravel(), minlength=VOID + 1)

    @on_one_thread
    def _upsample(self, channel: Float[Tensor, "h w"], box: Box, size: tuple[int, int]) -> Float32[ndarray, "y x"]:
        """Return a channel at the pixels of a box of cells."""
        # two more cells for the taps of bicubic, one for the pixels on the outline
        pixels, cells = _pixels_of(box, channel.shape, size), [slice(max(s.start - 3, 0), s.stop + 3) for s in box]
        rows, columns = (
            interpolation_matrix(channel.shape[axis], size[axis], self.upsampling)[pixels[axis], cells[axis]]
            for axis in (0, 1)
        )
        return np.asarray(rows @ channel[tuple(cells)] @ columns.T)


def objects_of(masks: Iterable[Mask]) -> tuple[int, ...]:
    """Return the ids of all masks, ascending, without background and void."""
    return tuple(sorted({object_id for mask in masks for object_id in mask.objects}))


def one_hot(ids: UInt8[ndarray, "h w"], objects: tuple[int, ...]) -> SoftLabels:
    """Return (1 + objects, h, w) float32: 1 in the channel of a cell's id, 0 in the others; void is 0 in all."""
    return torch.from_numpy(np.stack([ids == i for i in (BACKGROUND, *objects)]).astype(np.float32))


def area_matrix(pixels: int, cells: int) -> Float[Tensor, "cells pixels"]:
    """Return the (cells, pixels) float32 share of each pixel in each cell. Rows sum to 1, at any ratio of the two."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    pixel = torch.arange(pixels, dtype=torch.float64)
    first, last = edges[:-1, None], edges[1:, None]
    overlap = (torch.minimum(last, pixel + 1) - torch.maximum(first, pixel)).clamp(min=0)
    return (overlap * cells / pixels).float()


@lru_cache(maxsize=8)
def interpolation_matrix(cells: int, pixels: int, mode: Upsampling) -> Float[Tensor, "pixels cells"]:
    """Return the (pixels, cells) float32 weights of the cells in each pixel. Cached: do not modify.

    They are torch's own (`align_corners=False`, bicubic with a = -0.75), from the response to one cell at a time.
    """
    unit_cells = torch.eye(cells)[None, None]
    return F.interpolate(unit_cells, size=(pixels, cells), mode=mode, align_corners=False)[0, 0]


def sample_nearest(ids: UInt8[ndarray, "h w"], size: tuple[int, int]) -> UInt8[ndarray, "y x"]:
    """Resize ids by Pillow's nearest neighbor: cell i has the id of pixel floor((i + 0.5) * pixels / cells)."""
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))


def _keep_small_objects(soft: SoftLabels) -> None:
    """Give each object without half of a cell the whole cell that it covers most, in place."""
    halves = soft[1:] >= 0.5
    # not the only cell of another object, and no cell twice
    taken = (halves & (halves.sum((1, 2)) == 1)[:, None, None]).any(0)
    for channel, has_one in enumerate(halves.flatten(1).any(1).tolist(), start=1):
        share = soft[channel].masked_fill(taken, 0)
        if not has_one and float(share.amax()) > 0:
            row, column = divmod(int(share.argmax()), share.shape[1])
            soft[:, row, column] = 0
            soft[channel, row, column] = 1
            taken[row, column] = True


def _contended_boxes(soft: SoftLabels, objects: list[int]) -> dict[int, Box]:
    """Return the smallest box of cells per object channel in whose pixels it can be the greatest, if any.

    A pixel is a sum of the 5 x 5 cells around it with weights that sum to 1, the negative ones to -NEGATIVE_WEIGHT or
    more. So it lies between low - NEGATIVE_WEIGHT * (high - low) and high + NEGATIVE_WEIGHT * (high - low) of them.
    """
    channels = soft[[BACKGROUND, *objects]]
    low, high = -_maximum_around(-channels), _maximum_around(channels)
    margin = NEGATIVE_WEIGHT * (high - low)
    to_beat = (low - margin).amax(0).clamp(min=0)
    contended = (high > 0) & (high + margin > to_beat - ROUNDING)
    boxes = {}
    for channel, cells in zip(objects, contended[1:], strict=True):
        rows, columns = (cells.any(axis).nonzero().flatten() for axis in (1, 0))
        if len(rows) > 0:
            boxes[channel] = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return boxes


def _maximum_around(cells: SoftLabels) -> SoftLabels:
    columns = F.max_pool2d(cells, kernel_size=(5, 1), stride=1, padding=(2, 0))
    return F.max_pool2d(columns, kernel_size=(1, 5), stride=1, padding=(0, 2))


def _pixels_of(box: Box, grid: Sequence[int], size: tuple[int, int]) -> Box:
    """Return the pixels with centers in a box of cells or on its outline."""
    rows, columns = (slice(s.start * n // c, -(-s.stop * n // c)) for s, c, n in zip(box, grid, size, strict=True))
    return rows, columns


def _within_reach(box: Box, grid: Sequence[int]) -> Box:
    reach = math.ceil(REACH)
    rows, columns = (slice(max(s.start - reach, 0), min(s.stop + reach, c)) for s, c in zip(box, grid, strict=True))
    return rows, columns


def _relative(box: Box, region: Box) -> Box:
    rows, columns = (slice(s.start - r.start, s.stop - r.start) for s, r in zip(box, region, strict=True))
    return rows, columns
