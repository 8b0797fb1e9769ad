"""Masks as CRW's (videowalk) `test.py` encodes and decodes them, for comparisons with its numbers."""

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
    """The mask handling of CRW: two-tap bilinear both ways, no stretching.

    The script makes a channel of each distinct color of the label picture, which are the ids here, and leaves a label
    that it cannot name to the background; void pixels become background.

    Args:
        ids: the objects, ascending.
    """

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "l h w"]:
        """(1 + objects, h, w) float32: the one-hot mask shrunk by OpenCV's bilinear, which reads 2 x 2 pixels a cell.

        Raises:
            InputError: the mask has an object that the codec was not built for.
        """
        self.check(label)
        ids = np.where(label.ids == VOID, np.uint8(BACKGROUND), label.ids)
        channels = one_hot(ids, self.ids).numpy()
        return torch.from_numpy(np.stack([cv2.resize(c, grid[::-1], interpolation=cv2.INTER_LINEAR) for c in channels]))

    def decode(self, soft: Float[Tensor, "l h w"], frame: Frame) -> Prediction:
        """The mask: OpenCV's bilinear straight to the frame's size, argmax.

        The confidence of an object is the mean of its up-sampled label over the pixels it was given; 0 where it was
        given none.
        """
        height, width = frame.size
        upsampled = np.stack(
            [
                cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR)
                for channel in soft.detach().to("cpu", torch.float32).numpy()
            ]
        )
        winners = upsampled.argmax(0)
        confidence = {}
        for channel, object_id in enumerate(self.ids, start=1):
            own = upsampled[channel][winners == channel]
            confidence[object_id] = float(own.mean().clip(0, 1)) if len(own) else 0.0
        ids = np.array([BACKGROUND, *self.ids], np.uint8)[winners]
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=Mask(ids), confidence=confidence)
