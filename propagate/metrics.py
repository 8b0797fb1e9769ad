"""Scores: pure functions on arrays.

J and F are those of the DAVIS challenge (Perazzi et al., CVPR 2016; davis2017-evaluation, `metrics.py`), with its
conventions at the image border and for empty masks.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

BOUNDARY_BOUND = 0.008  # tolerance of F as a share of the image diagonal


def region_similarity(
    truth: Bool[ndarray, "h w"], prediction: Bool[ndarray, "h w"], void: Bool[ndarray, "h w"] | None = None
) -> float:
    """J: intersection over union of two masks, 1 if both are empty. Void pixels count as outside of both."""
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def boundary_accuracy(
    truth: Bool[ndarray, "h w"], prediction: Bool[ndarray, "h w"], void: Bool[ndarray, "h w"] | None = None
) -> float:
    """F: harmonic mean of the boundaries' precision and recall within `BOUNDARY_BOUND` of the diagonal.

    The tolerance in pixels is rounded up: 8 for 480x854. The image border is never a boundary. Both boundaries empty:
    1; one of them: 0.
    """
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    radius = math.ceil(BOUNDARY_BOUND * math.hypot(*truth.shape))
    true_boundary, predicted_boundary = boundary_map(truth), boundary_map(prediction)
    if not true_boundary.any() and not predicted_boundary.any():
        return 1.0
    if not true_boundary.any() or not predicted_boundary.any():
        return 0.0
    precision = _share_near(predicted_boundary, true_boundary, radius)
    recall = _share_near(true_boundary, predicted_boundary, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels that differ from their right, lower or lower-right neighbour; neighbours outside count as equal."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    differs: ndarray = (mask != right) | (mask != below) | (mask != diagonal)
    return differs


def box_side(mask: Bool[ndarray, "h w"]) -> float:
    """The longer side of the smallest box around a mask, in pixels; 0 for an empty one."""
    rows, columns = np.nonzero(mask)
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) if len(rows) else 0.0


def correct_keypoints(
    truth: Float[ndarray, "j 2"], prediction: Float[ndarray, "j 2"], *, alpha: float, side: float
) -> Bool[ndarray, " j"]:
    """PCK@alpha, before the mean: which points lie within alpha * side of the truth (Yang and Ramanan, PAMI 2013).

    Args:
        truth: (x, y) in pixels of the points that count.
        prediction: (x, y) in pixels; a point that was not found (NaN) is wrong.
        alpha: tolerance as a share of `side`; a distance of exactly that is right.
        side: the longer side of the object's box, see `box_side`.
    """
    distances = np.hypot(*(prediction - truth).T)
    correct: ndarray = distances <= alpha * side
    return correct


def _share_near(points: Bool[ndarray, "h w"], others: Bool[ndarray, "h w"], radius: int) -> float:
    """Share of `points` within `radius` pixels of any of `others`.

    Only the box around both is looked at; a distance transform is the dilation by the disc of the reference, exactly.
    """
    rows, columns = np.nonzero(points | others)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    distance: Float[ndarray, "y x"] = distance_transform_edt(~others[box])
    return float(np.count_nonzero(distance[points[box]] <= radius) / np.count_nonzero(points))
