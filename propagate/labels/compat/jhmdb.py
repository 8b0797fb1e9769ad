"""The keypoint codec of CRW's (videowalk) JHMDB code, for comparisons with its numbers.

Pixels here have integer centers from 0; the data set's .mat files count from 1, so subtract one before.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from propagate.labels.annotated import AnnotatedKeypoints, SoftLabels
from propagate.types import Frame, Keypoints, Prediction

SIGMA = 0.5  # cells
STRIDE = 8  # pixels per cell: the code has 40 x 40 cells for 320 x 320 pixels, with other features, too
TOP_K = 3


class JhmdbCodec(AnnotatedKeypoints):
    """The joint codec of `data/jhmdb.py` and `process_pose`.

    Channel 0 is 1 where all joints are 0; channel j + 1 is joint j. Grid position = pixel * cells / pixels per axis,
    without the half-cell shift of `propagate.geometry`, in both directions.
    """

    def __init__(self, names: tuple[str, ...], skeleton: tuple[tuple[int, int], ...] = ()) -> None:
        self.names, self.skeleton = names, skeleton

    def encode(self, label: Keypoints, frame_size: tuple[int, int], grid: tuple[int, int]) -> SoftLabels:
        """Return per joint a patch of 4 x 4 cells of a Gaussian with a peak of 1 on a cell; absent joints have none."""
        height, width = grid
        joints = np.zeros((len(self.names), height, width), np.float32)
        centers = self.positions(label).astype(np.float64) * np.array([width, height]) / np.array(frame_size[::-1])
        for joint, (x, y) in zip(joints, centers, strict=True):
            if np.isfinite([x, y]).all():
                _draw(joint, float(x), float(y))
        background = (joints == 0).all(0)
        return torch.from_numpy(np.concatenate([background[None].astype(np.float32), joints]))

    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Return the joints' positions; confidence: the highest value of a channel in [0, 1]. Zeros: absent, NaN."""
        _, height, width = soft.shape
        scale = np.array(frame.size[::-1]) / np.array([width, height])
        confidence = soft[1:].detach().amax((1, 2)).clamp(0, 1).to("cpu", torch.float32).numpy()
        positions = (decode_cells(soft) * scale).astype(np.float32)
        return self.given(Keypoints(positions, self.names, self.skeleton, confidence=confidence), frame)


def decode_cells(soft: SoftLabels) -> Float32[ndarray, "j 2"]:
    """Return (J, 2) positions (x, y) in grid cells: the mean of the three highest cells, weighted by their values.

    A channel of zeros gives NaN (in the script, -1). torch chooses among equal cells; on a fresh label that moves the
    result by up to 0.107 cells per axis.
    """
    _, height, width = soft.shape
    joints = soft[1:].detach().to("cpu", torch.float32).flatten(1)
    values, cells = joints.topk(min(TOP_K, height * width), dim=1)
    weights = values / values.sum(1, keepdim=True)
    x, y = (weights * (cells % width)).sum(1), (weights * (cells // width)).sum(1)
    positions: Float32[ndarray, "j 2"] = torch.stack([x, y], 1).numpy()
    return positions


def _draw(joint: Float32[ndarray, "h w"], x: float, y: float) -> None:
    """Write the patch around a grid position into a map, from less 3 sigma to plus 3 sigma, truncated TOWARDS ZERO.

    Its peak is 2 cells after its start: for a position below 1.5 that is one cell too far, as in the reference.
    """
    height, width = joint.shape
    (top, bottom), (left, right) = ((int(at - 3 * SIGMA), int(at + 3 * SIGMA + 1)) for at in (y, x))
    if left >= width or top >= height or right < 0 or bottom < 0:
        return
    rows, columns = np.arange(max(top, 0), min(bottom, height)), np.arange(max(left, 0), min(right, width))
    squared = (rows[:, None] - top - 2) ** 2 + (columns[None] - left - 2) ** 2
    joint[np.ix_(rows, columns)] = np.exp(-squared / (2 * SIGMA**2))
