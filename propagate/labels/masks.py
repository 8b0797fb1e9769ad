"""Masks: a soft label per object on the grid, and the mask at the frame's own size again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from propagate.labels.annotated import AnnotatedMasks
from propagate.labels.color_sides import REACH, Box, Contest, color_evidence, reduction_of
from propagate.labels.resampling import (
    Upsampling,
    area_matrix,
    interpolation_matrix,
    sample_nearest,
)
from propagate.threads import on_one_thread
from propagate.types import BACKGROUND, VOID, Frame, Mask, Prediction

# of torch's bicubic weights in two dimensions: 2 * 1.1875 * 0.1875, halfway between cells
NEGATIVE_WEIGHT = 0.4453125
# float32 up-sampling may be off by this much
ROUNDING = 1e-5


class MaskCodec(AnnotatedMasks):
    """Masks of any ids to soft labels and back.

    Channel 0 is the background, channel i + 1 the object `ids[i]`. Void pixels carry no label: they count for no
    channel, and a cell of nothing but void is zero in all of them.

    What encoding to the grid and straight back costs at stride 8 (J&F on DAVIS-2016 frames, per cent; a perfect mask
    has 100): area 97.1, blend 95.8, nearest 94.4, all with bicubic up-sampling.

    Args:
        ids: the objects, 1 to 254 each; ascending in most uses, and in a tie the first one wins.
        encode: "area": the share of a cell that the object covers (of the part that is not void).
            "nearest": 1 for the object at the cell's center pixel; an object that no center hits is lost.
            "blend": the mean of the two; where the center is void, the area alone.
            With area and blend an object that has a label of 0.5 nowhere gets the cell it covers most, whole (the
            first object, where several lie inside one cell).
        upsample: how the soft map comes to the frame's own size. "guided": bicubic, and where that leaves an outline
            undecided the colors of the frame decide, see `propagate.labels.color_sides`.
        stretch: stretch each channel from its least and greatest value on the grid to 0 and 1 before the channels are
            compared. It gives back the size of an object whose label has become weak. A constant channel stays.
        vanish: an object whose label is below this everywhere has left: it is not stretched and not predicted. The
            background, too, is not stretched below it.
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

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "l h w"]:
        """Soft labels of a mask.

        Args:
            label: the mask; it covers the frame at whatever size it has.
            frame_size: (height, width) of the frame; of no use here.
            grid: (rows, columns).

        Returns:
            (1 + objects, h, w) float32; a cell that is not all void sums to 1, except with "nearest" at a void center.

        Raises:
            InputError: the mask has an object that the codec was not built for.
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

    def decode(self, soft: Float[Tensor, "l h w"], frame: Frame) -> Prediction:
        """The mask at the frame's own size, and a confidence per object.

        A pixel belongs to the channel with the greatest up-sampled label; an object's has to be above 0 and above the
        background's. The confidence of an object is the mean of its up-sampled label, before stretching, over the
        pixels it was given, cut to [0, 1]; 0 where it was given none. A sharp label is near 1 inside and 0.5 at the
        outline, so large objects reach values above 0.9 and small ones less.

        Computed on the CPU, on the part of the frame that objects reach: three float32 and three uint8 per pixel of it.
        """
        soft = soft.detach().to("cpu", torch.float32)
        lowest, spread = self._stretching(soft)
        stretched = (soft - lowest[:, None, None]) / spread[:, None, None]
        present = [i for i in range(1, len(soft)) if float(soft[i].amax()) >= self.vanish]
        ids, sums = self._largest(stretched, present, frame)
        counts = np.bincount(ids.ravel(), minlength=VOID + 1)
        confidence = {}
        for channel, object_id in enumerate(self.ids, start=1):
            mean = sums[object_id] / max(counts[object_id], 1) * float(spread[channel]) + float(lowest[channel])
            confidence[object_id] = float(np.clip(mean, 0, 1)) if counts[object_id] else 0.0
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=Mask(ids), confidence=confidence)

    @on_one_thread
    def _area(self, ids: UInt8[ndarray, "y x"], grid: tuple[int, int]) -> Float[Tensor, "l h w"]:
        rows, columns = (area_matrix(pixels, cells) for pixels, cells in zip(ids.shape, grid, strict=True))

        def covered(pixels: Bool[ndarray, "y x"]) -> Float[Tensor, "h w"]:
            return rows @ torch.from_numpy(pixels.astype(np.float32)) @ columns.T

        # without void this is 1 everywhere; a cell of void alone stays 0 / 1
        known = covered(ids != VOID)
        known = torch.where(known > 0, known, 1)
        return torch.stack([covered(ids == i) / known for i in (BACKGROUND, *self.ids)])

    def _stretching(self, soft: Float[Tensor, "l h w"]) -> tuple[Float[Tensor, " l"], Float[Tensor, " l"]]:
        # stretching the grid and stretching the up-sampled map are one thing: the weights of a pixel sum to 1
        lowest, highest = soft.amin((1, 2)), soft.amax((1, 2))
        stretches = (highest > lowest) & (highest >= self.vanish) & self.stretch
        return torch.where(stretches, lowest, 0), torch.where(stretches, highest - lowest, 1)

    def _largest(
        self, soft: Float[Tensor, "l h w"], present: list[int], frame: Frame
    ) -> tuple[UInt8[ndarray, "y x"], Float[ndarray, "256"]]:
        """The id of the greatest channel per pixel, and per id the sum of its values over the pixels it has."""
        ids, size, grid = np.zeros(frame.size, np.uint8), frame.size, soft[0].shape
        boxes = _contended_boxes(soft, present)
        if not boxes:
            return ids, np.zeros(VOID + 1)
        if self.guided:
            boxes = {channel: _within_reach(box, grid) for channel, box in boxes.items()}
        rows, columns = zip(*boxes.values(), strict=True)
        whole = _hull(rows), _hull(columns)
        region = _pixels_of(whole, grid, size)
        inside = {channel: _relative(_pixels_of(box, grid, size), region) for channel, box in boxes.items()}
        contest = Contest(self._upsample(soft[BACKGROUND], whole, size).clip(min=0))
        for channel, box in boxes.items():
            contest.enter(self.ids[channel - 1], inside[channel], self._upsample(soft[channel], box, size))
        if self.guided:
            cell = size[0] / grid[0], size[1] / grid[1]
            for channel, box in boxes.items():
                object_id, part = self.ids[channel - 1], inside[channel]
                margin = contest.margin(object_id, part, self._upsample(soft[channel], box, size))
                pixels = frame.pixels[region][part]
                contest.hear(object_id, part, color_evidence(pixels, margin, cell, reduction_of(size)))
            contest.settle()
        ids[region] = contest.owner
        sums = np.bincount(contest.owner.ravel(), weights=contest.greatest.ravel(), minlength=VOID + 1)
        return ids, sums

    @on_one_thread
    def _upsample(self, channel: Float[Tensor, "h w"], box: Box, size: tuple[int, int]) -> Float32[ndarray, "y x"]:
        """A channel at the pixels of a box of cells."""
        pixels, cells = _pixels_of(box, channel.shape, size), tuple(_widened(side) for side in box)
        rows = interpolation_matrix(channel.shape[0], size[0], self.upsampling)[pixels[0], cells[0]]
        columns = interpolation_matrix(channel.shape[1], size[1], self.upsampling)[pixels[1], cells[1]]
        upsampled: ndarray = (rows @ channel[cells] @ columns.T).numpy()
        return upsampled


def objects_of(masks: Iterable[Mask]) -> tuple[int, ...]:
    """The ids that occur in any of the masks, ascending, without background and void."""
    return tuple(sorted({object_id for mask in masks for object_id in mask.objects}))


def one_hot(ids: UInt8[ndarray, "h w"], objects: tuple[int, ...]) -> Float[Tensor, "l h w"]:
    """(1 + objects, h, w) float32: 1 in the channel of a cell's id, channel 0 the background; void is 0 in all."""
    return torch.from_numpy(np.stack([ids == i for i in (BACKGROUND, *objects)]).astype(np.float32))


def _keep_small_objects(soft: Float[Tensor, "l h w"]) -> None:
    """Give each object that has half of no cell the cell it has most of, whole, in place."""
    halves = soft[1:] >= 0.5
    # the only cell of another object is not to be taken, and no cell twice
    taken = (halves & (halves.sum((1, 2)) == 1)[:, None, None]).any(0)
    for channel, has_one in enumerate(halves.flatten(1).any(1).tolist(), start=1):
        share = soft[channel].masked_fill(taken, 0)
        if not has_one and float(share.amax()) > 0:
            row, column = divmod(int(share.argmax()), share.shape[1])
            soft[:, row, column] = 0
            soft[channel, row, column] = 1
            taken[row, column] = True


def _contended_boxes(soft: Float[Tensor, "l h w"], objects: list[int]) -> dict[int, Box]:
    """Per object channel the smallest box of cells in whose pixels it may be the greatest; none where it cannot.

    A pixel reads the 5 x 5 cells around it with weights that sum to 1, the negative ones to -NEGATIVE_WEIGHT at most.
    So it lies between low - NEGATIVE_WEIGHT * (high - low) and high + NEGATIVE_WEIGHT * (high - low) of those cells.
    """
    rivals = soft[[BACKGROUND, *objects]]
    low, high = -_highest_around(-rivals), _highest_around(rivals)
    margin = NEGATIVE_WEIGHT * (high - low)
    to_beat = (low - margin).amax(0).clamp(min=0)
    contended = (high > 0) & (high + margin > to_beat - ROUNDING)
    boxes = {}
    for channel, cells in zip(objects, contended[1:], strict=True):
        rows, columns = (cells.any(axis).nonzero().flatten() for axis in (1, 0))
        if len(rows) > 0:
            boxes[channel] = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return boxes


def _highest_around(cells: Float[Tensor, "l h w"]) -> Float[Tensor, "l h w"]:
    columns = F.max_pool2d(cells, kernel_size=(5, 1), stride=1, padding=(2, 0))
    return F.max_pool2d(columns, kernel_size=(1, 5), stride=1, padding=(0, 2))


def _pixels_of(box: Box, grid: Sequence[int], size: tuple[int, int]) -> tuple[slice, slice]:
    """The pixels whose centers lie in a box of cells; those on its outline are among them."""
    rows, columns = (
        slice(side.start * pixels // cells, -(-side.stop * pixels // cells))
        for side, cells, pixels in zip(box, grid, size, strict=True)
    )
    return rows, columns


def _within_reach(box: Box, grid: Sequence[int]) -> Box:
    """A box of cells and what the colors in it are compared with."""
    reach = math.ceil(REACH)
    rows, columns = (
        slice(max(side.start - reach, 0), min(side.stop + reach, cells)) for side, cells in zip(box, grid, strict=True)
    )
    return rows, columns


def _relative(box: Box, region: Box) -> Box:
    """A box of pixels as it lies in a region around it."""
    rows, columns = (
        slice(side.start - outer.start, side.stop - outer.start) for side, outer in zip(box, region, strict=True)
    )
    return rows, columns


def _widened(cells: slice) -> slice:
    # two cells for the taps of bicubic, one for the pixels on the outline
    return slice(max(cells.start - 3, 0), cells.stop + 3)


def _hull(slices: Sequence[slice]) -> slice:
    return slice(min(side.start for side in slices), max(side.stop for side in slices))
