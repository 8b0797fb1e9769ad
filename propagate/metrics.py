"""Scores: pure functions on arrays. J, F and their statistics follow davis2017-evaluation (Perazzi et al., 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt64
from numpy import ndarray

BOUNDARY_BOUND = 0.008  # tolerance of F as a share of the image diagonal
_Mask = Bool[ndarray, "h w"]


def region_similarity(truth: _Mask, prediction: _Mask, void: _Mask | None = None) -> float:
    """Return J: intersection over union of two masks, 1 if both are empty. Void pixels are outside both."""
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def boundary_accuracy(truth: _Mask, prediction: _Mask, void: _Mask | None = None) -> float:
    """Return F: harmonic mean of the boundaries' precision and recall within `BOUNDARY_BOUND` of the diagonal.

    The tolerance is rounded up to pixels: 8 for 480x854. The image border is never a boundary. If both boundaries are
    empty, F is 1; if one is, 0.
    """
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    radius = math.ceil(BOUNDARY_BOUND * math.hypot(*truth.shape))
    true_boundary, predicted_boundary = _packed(boundary_map(truth)), _packed(boundary_map(prediction))
    true_count, predicted_count = _count(true_boundary), _count(predicted_boundary)
    if not true_count or not predicted_count:
        return 1.0 if true_count == predicted_count else 0.0
    precision = _count(predicted_boundary & _dilated(true_boundary, radius)) / predicted_count
    recall = _count(true_boundary & _dilated(predicted_boundary, radius)) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Return pixels that differ from their right, lower or lower-right neighbour; neighbours outside are equal."""
    boundary: Bool[ndarray, "h w"] = np.zeros(mask.shape, bool)
    boundary[:, :-1] = mask[:, :-1] != mask[:, 1:]
    boundary[:-1] |= mask[:-1] != mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return boundary


@dataclass(frozen=True)
class Statistics:
    """DAVIS's statistics of one object's values per frame."""

    mean: float  # over the frames with a value
    recall: float  # share of frames above 0.5; a frame without a value is not
    decay: float  # mean of the first quarter less mean of the last


def statistics(values: Float[ndarray, " t"]) -> Statistics:
    """Return mean, recall and decay of J or F per scored frame (davis2017-evaluation, `db_statistics`).

    Frames without a value are NaN; a statistic without values is NaN. Neighbouring quarters share a frame. The
    published code stores positions in 8 bits, so its decay is wrong from 256 values on; this one is not.
    """
    if not len(values):
        return Statistics(math.nan, math.nan, math.nan)
    # halves round up, for every length
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    first, last = values[: ends[1] + 1], values[ends[3] :]
    return Statistics(_nan_mean(values), float(np.mean(values > 0.5)), _nan_mean(first) - _nan_mean(last))


def box_side(mask: Bool[ndarray, "h w"]) -> float:
    """Return the longer side of a mask's bounding box, in pixels; 0 for an empty mask."""
    rows, columns = np.nonzero(mask)
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) if len(rows) else 0.0


def correct_keypoints(
    truth: Float[ndarray, "j 2"], prediction: Float[ndarray, "j 2"], *, alpha: float, side: float
) -> Bool[ndarray, " j"]:
    """Return which points lie within alpha * `box_side` of the truth: PCK@alpha, before the mean. NaN is wrong."""
    return np.asarray(np.hypot(*(prediction - truth).T) <= alpha * side)


def jhmdb_normalisers(truth: Float[ndarray, "t j 2"], visible: Bool[ndarray, "t j"]) -> Float64[ndarray, " t"]:
    """Return the unit of distances per frame, in pixels: 0.6 of the diagonal of the visible joints' true bounding box.

    The rule of CRW's `eval_pck.py` (Jabri et al., NeurIPS 2020; videowalk), where "visible" means found by the method.
    It is 0 with fewer than two visible joints.
    """
    exact, counted = truth.astype(np.float64), visible[:, :, None]
    sides = np.where(counted, exact, -np.inf).max(1) - np.where(counted, exact, np.inf).min(1)
    sides[~visible.any(1)] = 0
    return np.asarray(0.6 * np.hypot(sides[:, 0], sides[:, 1]))


def pck_distances(
    truth: Float[ndarray, "t j 2"],
    prediction: Float[ndarray, "t j 2"],
    visible: Bool[ndarray, "t j"],
    normaliser: Float[ndarray, " t"],
) -> Float64[ndarray, "t j"]:
    """Return the distances that PCK thresholds, in units of the frame's `jhmdb_normalisers`.

    All frames count; the caller omits JHMDB's first frame, whose truth is given to the method. A joint that is not
    visible is NaN. A visible joint without a position (NaN), or with a normaliser of 0, is infinite, which is wrong at
    every threshold.
    """
    pixels = np.hypot(*np.moveaxis(prediction.astype(np.float64) - truth, 2, 0))
    known = visible & np.isfinite(pixels) & (normaliser > 0)[:, None]
    distances: Float64[ndarray, "t j"] = np.where(visible, np.inf, np.nan)
    np.divide(pixels, normaliser[:, None], out=distances, where=known)
    return distances


def joint_pck(distances: Sequence[Float64[ndarray, "_ j"]], threshold: float) -> Float64[ndarray, " j"]:
    """Return each joint's PCK: the share of its distances up to `threshold`, over the frames of all clips.

    JHMDB reports the plain mean of the joints. `distances` has one array of `pck_distances` per clip. The result is NaN
    for a joint that is never visible.
    """
    pooled = np.concatenate(distances)
    counted = np.count_nonzero(~np.isnan(pooled), axis=0)
    right = np.count_nonzero(pooled <= threshold, axis=0)
    shares: Float64[ndarray, " j"] = np.full(pooled.shape[1], np.nan)
    np.divide(right, counted, out=shares, where=counted > 0)
    return shares


def _nan_mean(values: Float[ndarray, " t"]) -> float:
    """Mean without NaN; NaN if all are."""
    left = values[~np.isnan(values)]
    return float(left.mean()) if len(left) else math.nan


def _packed(points: Bool[ndarray, "h w"]) -> UInt64[ndarray, "h n"]:
    """Pack 64 pixels of a row into a word, the leftmost in the lowest bit."""
    packed = np.packbits(points, axis=1, bitorder="little")
    height, width = packed.shape
    padded = np.zeros((height, math.ceil(width / 8) * 8), np.uint8)
    padded[:, :width] = packed
    return padded.view("<u8").astype(np.uint64)


def _count(words: UInt64[ndarray, "h n"]) -> int:
    return int(np.bitwise_count(words).sum())


def _dilated(words: UInt64[ndarray, "h n"], radius: int) -> UInt64[ndarray, "h n"]:
    """Dilate packed pixels by a disc, exactly as the reference. Bits past the right edge may be set.

    A disc is a stack of rows that widen towards its center, so each row is made from the previous one.
    """
    height = len(words)
    dilated, row, half_width = np.zeros_like(words), words, 0
    for away in range(min(radius, height - 1), -1, -1):
        while half_width < math.isqrt(radius**2 - away**2):
            row, half_width = _widened(row), half_width + 1
        dilated[away:] |= row[: height - away]
        dilated[: height - away] |= row[away:]
    return dilated


def _widened(words: UInt64[ndarray, "h n"]) -> UInt64[ndarray, "h n"]:
    widened: UInt64[ndarray, "h n"] = words | words << 1 | words >> 1
    widened[:, 1:] |= words[:, :-1] >> 63
    widened[:, :-1] |= words[:, 1:] << 63
    return widened
