"""Keypoints: a spot of soft label per joint on the grid, and its sub-pixel position again."""

from __future__ import annotations

from math import ceil
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from numpy import ndarray
from scipy.special import softmax

from propagate.geometry import grid_to_pixels, pixels_to_grid
from propagate.labels.annotated import AnnotatedKeypoints, SoftLabels
from propagate.types import Frame, Keypoints, Prediction

# from a grid of 1000 cells to 1e-6 cells
BISECTIONS = 30


class KeypointCodec(AnnotatedKeypoints):
    """Named points to soft labels and back, with an error below 0.1 cell anywhere in the frame.

    Channel 0 is the background, 1 less the joints' sum; channel j + 1 is joint j and sums to 1 over the grid. An absent
    joint, or one outside the frame, has a channel of zeros and stays absent until an anchor shows it. On an axis of one
    cell, every joint is decoded to the middle of the frame.

    Args:
        names: names of the J joints.
        skeleton: pairs of joint numbers, for the predictions.
        encode: "gaussian": a Gaussian around the point, cut at the border of the grid.
            "bilinear": weights of the 2 x 2 cells around the point. In the outermost half cell of the frame the weights
            are extrapolated: one is above 1 and its neighbor below 0.
        sigma: standard deviation of the Gaussian, in cells; from 0.3 to 3 the round trip is exact to 1e-5 cells.
        absent: a joint with a confidence below this is absent.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        skeleton: tuple[tuple[int, int], ...] = (),
        *,
        encode: Literal["gaussian", "bilinear"] = "gaussian",
        sigma: float = 0.7,
        absent: float = 0.02,
    ) -> None:
        self.names, self.skeleton = names, skeleton
        self.encoding, self.sigma, self.absent = encode, sigma, absent
        # radius of the window around a peak: a fresh label, and some room for one that has spread
        self.reach = max(2, ceil(2 * sigma)) if encode == "gaussian" else 2

    def encode(self, label: Keypoints, frame_size: tuple[int, int], grid: tuple[int, int]) -> SoftLabels:
        """Return the (1 + J, h, w) float32 soft labels of positions in pixels of a frame."""
        height, width = grid
        positions = self.positions(label).astype(np.float64)
        visible = np.all((positions >= -0.5) & (positions <= _far_corner(frame_size)), axis=1)
        centers = pixels_to_grid(np.where(visible[:, None], positions, 0), frame_size, grid)
        columns, rows = self._profile(centers[:, 0], width), self._profile(centers[:, 1], height)
        joints = rows[:, :, None] * columns[:, None, :] * visible[:, None, None]
        background = np.clip(1 - joints.sum(0), 0, 1)
        return torch.from_numpy(np.concatenate([background[None], joints]).astype(np.float32))

    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Return the joints' positions in the frame, each with a confidence.

        The position is a soft-argmax in the window around the highest cell: the center of the Gaussian that, cut by the
        window and the border of the grid, has the same mean. The confidence is the sum of the joint's label in that
        window, relative to a fresh label there, clipped to [0, 1]: low for a label that has split or spread.
        Below `absent` the joint is absent: position NaN, confidence 0.
        """
        joints = soft[1:].detach().to("cpu", torch.float64).numpy()
        _, height, width = joints.shape
        peaks = joints.reshape(len(joints), height * width).argmax(1)
        offsets = np.arange(-self.reach, self.reach + 1)
        rows, columns = (peaks // width)[:, None] + offsets, (peaks % width)[:, None] + offsets
        patches = np.take_along_axis(joints, rows.clip(0, height - 1)[:, :, None], 1)
        patches = np.take_along_axis(patches, columns.clip(0, width - 1)[:, None, :], 2)
        patches = patches * _inside(rows, height)[:, :, None] * _inside(columns, width)[:, None, :]
        mass = patches.sum((1, 2))
        found = mass > 0
        divisor = np.where(found, mass, 1)
        x = self._center((patches.sum(1) * columns).sum(1) / divisor, columns, width)
        y = self._center((patches.sum(2) * rows).sum(1) / divisor, rows, height)
        fresh = self._share(x, columns, width) * self._share(y, rows, height)
        confidence = np.where(found, (mass / fresh).clip(0, 1), 0)
        confidence[confidence < self.absent] = 0
        positions = grid_to_pixels(np.stack([x, y], 1), frame.size, (height, width))
        positions = positions.clip(-0.5, _far_corner(frame.size))  # against rounding errors
        positions[confidence == 0] = np.nan
        return self.given(Keypoints(positions, self.names, self.skeleton, confidence=confidence), frame)

    def _profile(self, centers: Float64[ndarray, " j"], cells: int) -> Float64[ndarray, "j c"]:
        """Return a fresh label along one axis, per joint; each sums to 1."""
        cell = np.arange(cells)
        if self.encoding == "gaussian":
            return _gaussian(np.tile(cell, (len(centers), 1)), centers, self.sigma)
        if cells == 1:
            return np.ones((len(centers), 1))
        first = np.floor(centers).clip(0, cells - 2)
        share = (centers - first)[:, None]
        return np.asarray((cell == first[:, None]) * (1 - share) + (cell == first[:, None] + 1) * share)

    def _center(self, means: Float64[ndarray, " j"], window: Int[ndarray, "j k"], cells: int) -> Float64[ndarray, " j"]:
        """Return the center, along one axis, of a fresh label with this mean in the window."""
        if self.encoding == "bilinear" or cells == 1:
            return np.asarray(means.clip(-0.5, cells - 0.5))
        # the mean of a Gaussian, however cut, increases with its center
        low, high = np.full(len(means), -0.5), np.full(len(means), cells - 0.5)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            weights = _gaussian(window, middle, self.sigma, where=_inside(window, cells))
            too_low = (weights * window).sum(1) < means
            low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
        return low

    def _share(
        self, centers: Float64[ndarray, " j"], window: Int[ndarray, "j k"], cells: int
    ) -> Float64[ndarray, " j"]:
        """Return the share of a fresh label at these centers that lies in the window, along one axis."""
        profile = np.take_along_axis(self._profile(centers, cells), window.clip(0, cells - 1), 1)
        return np.asarray((profile * _inside(window, cells)).sum(1))


def _gaussian(
    cells: Int[ndarray, "j k"], centers: Float64[ndarray, " j"], sigma: float, where: Bool[ndarray, "j k"] | None = None
) -> Float64[ndarray, "j k"]:
    """Return a Gaussian at cells, per center, that sums to 1 over the cells (those of `where`)."""
    exponent = -((cells - centers[:, None]) ** 2) / (2 * sigma**2)
    if where is not None:
        exponent = np.where(where, exponent, -np.inf)
    return np.asarray(softmax(exponent, axis=1))


def _inside(cells: Int[ndarray, "j k"], n_cells: int) -> Bool[ndarray, "j k"]:
    return np.asarray((cells >= 0) & (cells < n_cells))


def _far_corner(size: tuple[int, int]) -> Float64[ndarray, "2"]:
    return np.array(size[::-1]) - 0.5
