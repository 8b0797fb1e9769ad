"""What anyone would try first, to stand beside the presets: the first label copied, or moved by optical flow.

Both read a clip as `propagate.pipeline.track` does: streaming, one prediction per frame at the frame's own size, the
first frame answered with the label itself.
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
    """The first label, copied to every frame.

    Args:
        frames: the clip.
        label: of its first frame.
    """
    for frame in frames:
        yield _prediction(frame, label, _certain(label))


def flow(frames: Iterable[Frame], label: Label) -> Iterator[Prediction]:
    """The label moved from frame to frame by dense optical flow: OpenCV's DIS (Kroeger et al., ECCV 2016), "medium".

    Masks are warped backward, with the flow from the current frame to the one before. The share of each object per
    pixel stays a number from frame to frame, and the mask is the greatest share: warping the hardened mask of every
    frame again would wear its outline off. What comes in from outside of the picture is background, and so is what was
    void in the first mask. The confidence of an object is the mean of its share over the pixels that it was given.

    Keypoints move by the flow from the frame before to the current one, read between its pixels. A joint that leaves
    the picture is lost: absent from there on.

    Args:
        frames: the clip, all of one size.
        label: of its first frame.

    Raises:
        InputError: a frame differs in size from the one before.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    carried: _Shares | _Points | None = None
    before: UInt8[ndarray, "h w"] | None = None
    for frame in frames:
        grey = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY)
        if before is None or carried is None:
            carried = _Shares(label) if isinstance(label, Mask) else _Points(label)
            yield _prediction(frame, label, _certain(label))
        else:
            if grey.shape != before.shape:
                raise InputError(
                    f"Frame {frame.index} is {grey.shape[1]}x{grey.shape[0]}, the one before "
                    f"{before.shape[1]}x{before.shape[0]}.",
                    "Optical flow needs frames of one size.",
                )
            source, target = (grey, before) if carried.backward else (before, grey)
            carried.move(estimator.calc(source, target, None))
            yield _prediction(frame, *carried.answer())
        before = grey


class _Shares:
    """The objects' shares per pixel; the background has what is left."""

    backward = True

    def __init__(self, mask: Mask) -> None:
        self._ids, self._size = mask.objects, mask.size
        self._shares = [(mask.ids == i).astype(np.float32) for i in self._ids]

    def move(self, flow: Float32[ndarray, "h w 2"]) -> None:
        """Warp by the flow from the current frame to the one before."""
        height, width, _ = flow.shape
        x = flow[..., 0] + np.arange(width, dtype=np.float32)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        self._shares = [
            cv2.remap(share, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            for share in self._shares
        ]

    def answer(self) -> tuple[Mask, dict[int, float]]:
        """The mask, and each object's confidence."""
        ids: UInt8[ndarray, "h w"] = np.full(self._size, BACKGROUND, np.uint8)
        greatest = np.ones(self._size, np.float32)
        for share in self._shares:
            greatest -= share
        for object_id, share in zip(self._ids, self._shares, strict=True):
            more: Bool[ndarray, "h w"] = share > greatest
            ids[more] = object_id
            greatest = np.maximum(greatest, share)
        confidence = {}
        for object_id, share in zip(self._ids, self._shares, strict=True):
            inside = share[ids == object_id]
            confidence[object_id] = min(float(inside.mean()), 1.0) if len(inside) else 0.0
        return Mask(ids), confidence


class _Points:
    """The joints' positions; NaN where one is absent or lost."""

    backward = False

    def __init__(self, keypoints: Keypoints) -> None:
        self._first = keypoints
        self._positions = keypoints.positions.copy()

    def move(self, flow: Float32[ndarray, "h w 2"]) -> None:
        """Move by the flow from the frame before to the current one."""
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

    def answer(self) -> tuple[Keypoints, dict[str, float]]:
        """The joints, and 1 or 0 for each that is or is not in the picture."""
        keypoints = Keypoints(self._positions.copy(), self._first.names, self._first.skeleton)
        return keypoints, _presence(keypoints)


def _certain(label: Label) -> dict[int, float] | dict[str, float]:
    """Confidence 1 for everything that the label has."""
    return dict.fromkeys(label.objects, 1.0) if isinstance(label, Mask) else _presence(label)


def _presence(keypoints: Keypoints) -> dict[str, float]:
    return dict(zip(keypoints.names, keypoints.present.astype(float).tolist(), strict=True))


def _prediction(frame: Frame, label: Label, confidence: dict[int, float] | dict[str, float]) -> Prediction:
    if isinstance(label, Mask):
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=label, confidence=confidence)
    return Prediction(frame.index, frame.time_s, name=frame.name, keypoints=label, confidence=confidence)
