"""Scores: pure functions on arrays.

J, F and their statistics are those of the DAVIS challenge (Perazzi et al., CVPR 2016; davis2017-evaluation,
`metrics.py` and `utils.py`), with its conventions at the image border and for empty masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt64
from numpy import ndarray

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
    true_boundary, predicted_boundary = _packed(boundary_map(truth)), _packed(boundary_map(prediction))
    true_count, predicted_count = _count(true_boundary), _count(predicted_boundary)
    if not true_count or not predicted_count:
        return 1.0 if true_count == predicted_count else 0.0
    precision = _count(predicted_boundary & _dilated(true_boundary, radius)) / predicted_count
    recall = _count(true_boundary & _dilated(predicted_boundary, radius)) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels that differ from their right, lower or lower-right neighbour; neighbours outside count as equal."""
    boundary: Bool[ndarray, "h w"] = np.zeros(mask.shape, bool)
    boundary[:, :-1] = mask[:, :-1] != mask[:, 1:]
    boundary[:-1] |= mask[:-1] != mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return boundary


@dataclass(frozen=True)
class Statistics:
    """What DAVIS reports of one object's values per frame.

    Attributes:
        mean: over the frames that have a value.
        recall: share of frames above 0.5; one without a value is not.
        decay: mean of the first quarter less mean of the last.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Float[ndarray, " t"]) -> Statistics:
    """Mean, recall and decay over time (davis2017-evaluation, `db_statistics`).

    Neighbouring quarters share the frame between them. Positions are whole numbers of any size here; the published
    code keeps them in 8 bits, so that its decay is wrong from 256 values on.

    Args:
        values: J or F per scored frame; NaN where there is none.

    Returns:
        NaN for what no value is left for.
    """
    if not len(values):
        return Statistics(math.nan, math.nan, math.nan)
    # What lies halfway between two positions goes up, for every length.
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    first, last = values[: ends[1] + 1], values[ends[3] :]
    return Statistics(_nan_mean(values), float(np.mean(values > 0.5)), _nan_mean(first) - _nan_mean(last))


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


def jhmdb_normalisers(truth: Float[ndarray, "t j 2"], visible: Bool[ndarray, "t j"]) -> Float64[ndarray, " t"]:
    """What distances are measured in, per frame: 0.6 of the diagonal of the box around the visible joints' truth.

    The rule of CRW's `eval_pck.py` (Jabri et al., NeurIPS 2020; videowalk), which takes 0.6 of the diagonal for the
    length of the body.

    Args:
        truth: (x, y) in pixels.
        visible: which joints the box is drawn around; that rule: those that the method has found.

    Returns:
        Pixels; 0 where fewer than two joints are visible.
    """
    exact, counted = truth.astype(np.float64), visible[:, :, None]
    sides = np.where(counted, exact, -np.inf).max(1) - np.where(counted, exact, np.inf).min(1)
    sides[~visible.any(1)] = 0
    normalisers: Float64[ndarray, " t"] = 0.6 * np.hypot(sides[:, 0], sides[:, 1])
    return normalisers


def pck_distances(
    truth: Float[ndarray, "t j 2"],
    prediction: Float[ndarray, "t j 2"],
    visible: Bool[ndarray, "t j"],
    normaliser: Float[ndarray, " t"],
) -> Float64[ndarray, "t j"]:
    """Distances between truth and prediction in units of the frame's normaliser; what PCK thresholds.

    All frames that are given count; JHMDB's first frame, whose truth is given to the method, is left out by the caller.

    Args:
        truth: (x, y) in pixels.
        prediction: (x, y) in the same pixels.
        visible: which joints count.
        normaliser: per frame, in pixels, see `jhmdb_normalisers`.

    Returns:
        NaN where a joint does not count; infinity, which is wrong at every threshold, for a joint that counts and has
        no position (NaN), and where the normaliser is 0.
    """
    pixels = np.hypot(*np.moveaxis(prediction.astype(np.float64) - truth, 2, 0))
    known = visible & np.isfinite(pixels) & (normaliser > 0)[:, None]
    distances: Float64[ndarray, "t j"] = np.where(visible, np.inf, np.nan)
    np.divide(pixels, normaliser[:, None], out=distances, where=known)
    return distances


def joint_pck(distances: Sequence[Float64[ndarray, "_ j"]], threshold: float) -> Float64[ndarray, " j"]:
    """PCK of each joint: the share of its distances up to `threshold`, over the frames of all clips together.

    JHMDB reports the plain mean of the joints.

    Args:
        distances: one array per clip, see `pck_distances`; NaN does not count.
        threshold: in units of the normaliser; a distance of exactly that is right.

    Returns:
        Shares in [0, 1], NaN for a joint that never counted.
    """
    pooled = np.concatenate(distances)
    counted = np.count_nonzero(~np.isnan(pooled), axis=0)
    right = np.count_nonzero(pooled <= threshold, axis=0)
    shares: Float64[ndarray, " j"] = np.full(pooled.shape[1], np.nan)
    np.divide(right, counted, out=shares, where=counted > 0)
    return shares


def _nan_mean(values: Float[ndarray, " t"]) -> float:
    """Mean of what is not NaN, NaN where nothing is left."""
    left = values[~np.isnan(values)]
    return float(left.mean()) if len(left) else math.nan


def _packed(points: Bool[ndarray, "h w"]) -> UInt64[ndarray, "h n"]:
    """64 pixels of a row in a word, the leftmost in the lowest bit."""
    packed = np.packbits(points, axis=1, bitorder="little")
    height, width = packed.shape
    padded = np.zeros((height, math.ceil(width / 8) * 8), np.uint8)
    padded[:, :width] = packed
    return padded.view("<u8").astype(np.uint64)


def _count(words: UInt64[ndarray, "h n"]) -> int:
    """Number of points among packed pixels."""
    return int(np.bitwise_count(words).sum())


def _dilated(words: UInt64[ndarray, "h n"], radius: int) -> UInt64[ndarray, "h n"]:
    """Packed pixels within `radius` of a point: the dilation by the disc of the reference, exactly.

    A disc is a stack of rows; going towards its middle they only become wider, so each is made from the one before.
    Bits past the right edge may be set.
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
    """Packed pixels with their neighbours on the left and on the right."""
    widened: UInt64[ndarray, "h n"] = words | words << 1 | words >> 1
    widened[:, 1:] |= words[:, :-1] >> 63
    widened[:, :-1] |= words[:, 1:] << 63
    return widened
