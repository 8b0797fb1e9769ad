"""Outlines that follow the picture: the side of an outline on which a pixel lies by its color.

Around every pixel, the colors of the object and of its surroundings form two normal distributions. The log likelihood
ratio of the pixel's own color decides where the upsampled label, exact to about a cell, is undecided. This is the local
color model of Video SnapCut (Bai et al., SIGGRAPH 2009), with soft labels instead of a drawn outline and box filters
for all windows, as in the guided filter (He, Sun and Tang, ECCV 2010), which gains less: docs/performance.md.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from propagate.types import BACKGROUND

Box = tuple[slice, slice]

# Chosen with `compact` on the first 40 frames of camel, drift-straight, horsejump-high, libby and parkour (DAVIS).
REACH = 3.0  # radius of the windows, in cells
LINES = 240  # height of the picture in which colors are compared; more is slower and not better
VARIANCE = 0.003  # minimum for a color within one side; colors are in [0, 1]
PRIOR = 0.003  # share of the colors of both sides in each side, so that neither is empty
EVIDENCE_WEIGHT = 0.8  # of the log likelihood ratio, relative to the label's log odds
EVIDENCE_LIMIT = 3.0  # maximum of the absolute evidence

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class TopTwo:
    """The objects with the greatest and the second greatest label per pixel, and the evidence between them.

    `owner` has the ids of the greatest, `greatest` their labels. At first, all is background.
    """

    def __init__(self, background: Float32[ndarray, "y x"]) -> None:
        self.owner = np.zeros(background.shape, np.uint8)
        self.greatest = background.copy()
        self._runner_up = np.zeros(background.shape, np.uint8)
        self._second = np.full(background.shape, -np.inf, np.float32)
        self._evidence = np.zeros(background.shape, np.float32)
        self._evidence_count = np.zeros(background.shape, np.uint8)

    def add(self, object_id: int, box: Box, values: Float32[ndarray, "j i"]) -> None:
        """Rank one more object, with its label in a box. In a tie the earlier one wins."""
        owner, runner_up, greatest, second = (
            ranks[box] for ranks in (self.owner, self._runner_up, self.greatest, self._second)
        )
        leads = values > greatest
        follows = ~leads & (values > second)
        np.copyto(runner_up, owner, where=leads)
        np.copyto(runner_up, np.uint8(object_id), where=follows)
        np.maximum(second, np.minimum(values, greatest), out=second)
        np.copyto(owner, np.uint8(object_id), where=leads)
        np.maximum(greatest, values, out=greatest)

    def margin(self, object_id: int, box: Box, values: Float32[ndarray, "j i"]) -> Float32[ndarray, "j i"]:
        """Return an object's label less the greatest of the others, in a box."""
        rivals = np.where(self.owner[box] == object_id, self._second[box], self.greatest[box])
        return np.asarray(values - rivals, np.float32)

    def add_evidence(self, object_id: int, box: Box, evidence: Float32[ndarray, "j i"]) -> None:
        """Add evidence for an object against all others, in a box; it counts where the object is in the top two."""
        leads, follows = self.owner[box] == object_id, self._runner_up[box] == object_id
        self._evidence[box] += np.where(leads, evidence, np.where(follows, -evidence, 0))
        self._evidence_count[box] += leads | follows

    def apply_evidence(self) -> None:
        """Exchange the top two where the evidence, averaged if both have some, outweighs the label.

        A margin m between their labels counts as log odds, log((1 + m) / (1 - m)). No object gains a pixel where its
        label is 0.
        """
        evidence = self._evidence / np.maximum(self._evidence_count, 1)
        # log((1 + m) / (1 - m)) + weight * evidence < 0
        exchanged = self.greatest - self._second < np.tanh(-EVIDENCE_WEIGHT / 2 * evidence)
        exchanged &= (self._second > 0) | (self._runner_up == BACKGROUND)
        np.copyto(self.owner, self._runner_up, where=exchanged)
        np.copyto(self.greatest, self._second, where=exchanged)


def color_evidence(
    pixels: UInt8[ndarray, "y x 3"], margin: Float32[ndarray, "y x"], cell: tuple[float, float], reduction: int
) -> Float32[ndarray, "y x"]:
    """Return the log likelihood ratio of each pixel's color under the object's colors and the others' near it.

    It is clipped to +-EVIDENCE_LIMIT, and 0 where the picture is flat or only one side is within REACH. `margin`, the
    object's label less the greatest of the others, weights each pixel in the distribution of its side. `cell` is the
    (height, width) of a grid cell in pixels, `reduction` see `reduction_of`.
    """
    height, width = margin.shape
    small = (-(-width // reduction), -(-height // reduction))
    colors = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    colors -= colors.mean((0, 1))  # float32 variances of large numbers are inexact
    sides = cv2.resize(np.clip(margin, -1, 1), small, interpolation=cv2.INTER_AREA)
    # two box filters in a row, each with half the reach, weight near pixels more than far ones
    radii = [max(1, round(REACH / 2 * side / reduction)) for side in cell]
    products = np.stack([colors[..., i] * colors[..., j] for i, j in _PAIRS], -1)
    moments = np.concatenate([np.ones_like(colors[..., :1]), colors, products], -1)
    inside, outside = (_window_sums(moments * side[..., None], radii) for side in (sides.clip(0), (-sides).clip(0)))
    both = inside + outside
    both *= PRIOR / np.maximum(both[..., :1], np.finfo(np.float32).tiny)
    ratio = _log_likelihood(colors, inside + both) - _log_likelihood(colors, outside + both)
    evidence = np.clip(ratio, -EVIDENCE_LIMIT, EVIDENCE_LIMIT)
    return np.asarray(cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def reduction_of(size: tuple[int, int]) -> int:
    """Return the factor that reduces a frame of (height, width) to about LINES on its short side."""
    return max(1, round(min(size) / LINES))


def _window_sums(maps: Float32[ndarray, "y x c"], radii: list[int]) -> Float32[ndarray, "y x c"]:
    window = (2 * radii[1] + 1, 2 * radii[0] + 1)
    once = cv2.boxFilter(maps, -1, window, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.boxFilter(once, -1, window, borderType=cv2.BORDER_REPLICATE), np.float32)


def _log_likelihood(colors: Float32[ndarray, "y x 3"], sums: Float32[ndarray, "y x 10"]) -> Float32[ndarray, "y x"]:
    """Return the log likelihood, up to a constant, of each pixel's color under its window's normal distribution.

    Where the weights sum to 0 the distribution is that of the mean color.
    """
    weights = np.maximum(sums[..., 0], np.finfo(np.float32).tiny)
    mean = [sums[..., 1 + i] / weights for i in range(3)]
    rr, rg, rb, gg, gb, bb = (
        sums[..., 4 + place] / weights - mean[i] * mean[j] + VARIANCE * (i == j) for place, (i, j) in enumerate(_PAIRS)
    )
    r, g, b = (colors[..., i] - mean[i] for i in range(3))
    # the inverse of the symmetric 3 x 3 covariance by its cofactors
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = np.maximum(rr * c_rr + rg * c_rg + rb * c_rb, VARIANCE**3)
    distance = c_rr * r * r + c_gg * g * g + c_bb * b * b + 2 * (c_rg * r * g + c_rb * r * b + c_gb * g * b)
    return np.asarray(-(distance / determinant + np.log(determinant)) / 2, np.float32)
