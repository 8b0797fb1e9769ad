"""The mask codec of CRW's (videowalk) `test.py`, for comparisons with its numbers."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from propagate.labels.annotated import AnnotatedMasks
from propagate.labels.masks import one_hot
from propagate.types import BACKGROUND, VOID, Frame, Mask, Prediction


class CrwMaskCodec(AnnotatedMasks):
    """The mask codec of CRW: two-tap bilinear both ways, no stretching; void pixels become background."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "l h w"]:
        """Return the one-hot mask, reduced by OpenCV's bilinear, which reads 2 x 2 pixels per cell."""
        self.check(label)
        ids = np.where(label.ids == VOID, np.uint8(BACKGROUND), label.ids)
        channels = one_hot(ids, self.ids).numpy()
        return torch.from_numpy(np.stack([cv2.resize(c, grid[::-1], interpolation=cv2.INTER_LINEAR) for c in channels]))

    def decode(self, soft: Float[Tensor, "l h w"], frame: Frame) -> Prediction:
        """Return the argmax after OpenCV's bilinear to the frame's size.

        The confidence of an object is the mean of its upsampled label over its pixels; 0 without pixels.
        """
        channels, size = soft.detach().to("cpu", torch.float32).numpy(), frame.size[::-1]
        upsampled = np.stack([cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in channels])
        winners = upsampled.argmax(0)
        confidence = {}
        for channel, object_id in enumerate(self.ids, start=1):
            own = upsampled[channel][winners == channel]
            confidence[object_id] = float(own.mean().clip(0, 1)) if len(own) else 0.0
        ids = np.array([BACKGROUND, *self.ids], np.uint8)[winners]
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=Mask(ids), confidence=confidence)
