"""Baselines to compare presets with: the first label copied, or moved by optical flow.

Like `propagate.pipeline.track`, both stream: one prediction per frame at the frame's own size, the given label for the
first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from propagate.errors import InputError
from propagate.types import BACKGROUND, Frame, Keypoints, Label, Mask, Prediction


def static(frames: Iterable[Frame], label: Label) -> Iterator[Prediction]:
    """Copy the first label to all frames."""
    for frame in frames:
        yield _prediction(frame, label, _certain(label))


def flow(frames: Iterable[Frame], label: Label) -> Iterator[Prediction]:
    """Move the label from frame to frame by dense optical flow: OpenCV's DIS (Kroeger et al., ECCV 2016), "medium".

    Masks are warped backward, with the flow from the current frame to the previous one. Each object's share per pixel
    is warped, and the largest share gives the mask: warping hard masks repeatedly would erode their outlines. Void of
    the first mask, and pixels from outside of the picture, become background. The confidence of an object is its mean
    share over its pixels.

    Keypoints move by the interpolated flow from the previous frame to the current one. A joint that leaves the picture
    is absent from then on.

    Raises:
        InputError: frames differ in size.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    carried: _Shares | _Points | None = None
    before: UInt8[ndarray, "h w"] | None = None
    for frame in frames:
        gray = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY)
        if before is None or carried is None:
            carried = _Shares(label) if isinstance(label, Mask) else _Points(label)
            yield _prediction(frame, label, _certain(label))
        else:
            if gray.shape != before.shape:
                raise InputError(
                    f"Frame {frame.index} is {gray.shape[1]}x{gray.shape[0]}, the previous one "
                    f"{before.shape[1]}x{before.shape[0]}.",
                    "Optical flow needs frames of one size.",
                )
            source, target = (gray, before) if carried.backward else (before, gray)
            carried.move(estimator.calc(source, target, None))
            yield _prediction(frame, *carried.label())
        before = gray


class _Shares:
    """The share of each object per pixel; the background has the rest."""

    backward = True

    def __init__(self, mask: Mask) -> None:
        self._ids, self._size = mask.objects, mask.size
        self._shares = [(mask.ids == i).astype(np.float32) for i in self._ids]

    def move(self, flow: Float32[ndarray, "h w 2"]) -> None:
        """Warp by the flow from the current frame to the previous one."""
        height, width, _ = flow.shape
        x = flow[..., 0] + np.arange(width, dtype=np.float32)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        self._shares = [
            cv2.remap(share, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            for share in self._shares
        ]

    def label(self) -> tuple[Mask, dict[int, float]]:
        """Return the mask and each object's confidence."""
        ids: UInt8[ndarray, "h w"] = np.full(self._size, BACKGROUND, np.uint8)
        greatest = np.ones(self._size, np.float32)
        for share in self._shares:
            greatest -= share
        for object_id, share in zip(self._ids, self._shares, strict=True):
            more: Bool[ndarray, "h w"] = share > greatest
            ids[more] = object_id
            greatest = np.maximum(greatest, share)
        inside = {i: share[ids == i] for i, share in zip(self._ids, self._shares, strict=True)}
        return Mask(ids), {i: min(float(own.mean()), 1.0) if len(own) else 0.0 for i, own in inside.items()}


class _Points:
    """The positions of the joints; NaN where absent."""

    backward = False

    def __init__(self, keypoints: Keypoints) -> None:
        self._first = keypoints
        self._positions = keypoints.positions.copy()

    def move(self, flow: Float32[ndarray, "h w 2"]) -> None:
        """Move by the flow from the previous frame to the current one."""
        height, width, _ = flow.shape
        present = np.isfinite(self._positions).all(1)
        if not present.any():
            return
        x, y = self._positions[present].T[:, None]
        moves = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        moved = self._positions[present] + moves
        outside = (moved < -0.5).any(1) | (moved > np.array([width, height]) - 0.5).any(1)
        moved[outside] = np.nan
        self._positions[present] = moved

    def label(self) -> tuple[Keypoints, dict[str, float]]:
        """Return the joints, with confidence 1 in the picture and 0 outside."""
        keypoints = Keypoints(self._positions.copy(), self._first.names, self._first.skeleton)
        return keypoints, _presence(keypoints)


def _certain(label: Label) -> dict[int, float] | dict[str, float]:
    return dict.fromkeys(label.objects, 1.0) if isinstance(label, Mask) else _presence(label)


def _presence(keypoints: Keypoints) -> dict[str, float]:
    return dict(zip(keypoints.names, keypoints.present.astype(float).tolist(), strict=True))


def _prediction(frame: Frame, label: Label, confidence: dict[int, float] | dict[str, float]) -> Prediction:
    if isinstance(label, Mask):
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=label, confidence=confidence)
    return Prediction(frame.index, frame.time_s, name=frame.name, keypoints=label, confidence=confidence)
