"""The mask codecs of DIFT's and DINO's DAVIS scripts and of CRW's (videowalk) `test.py`, to compare numbers."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.labels.annotated import AnnotatedMasks, SoftLabels
from propagate.labels.masks import one_hot, sample_nearest
from propagate.types import BACKGROUND, VOID, Frame, Mask, Prediction


class CrwMaskCodec(AnnotatedMasks):
    """The mask codec of CRW: two-tap bilinear both ways, no stretching; void pixels become background."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> SoftLabels:
        """Return the one-hot mask, reduced by OpenCV's bilinear, which reads 2 x 2 pixels per cell."""
        self.check(label)
        ids = np.where(label.ids == VOID, np.uint8(BACKGROUND), label.ids)
        channels = one_hot(ids, self.ids).numpy()
        return torch.from_numpy(np.stack([cv2.resize(c, grid[::-1], interpolation=cv2.INTER_LINEAR) for c in channels]))

    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
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


class DiftMaskCodec(AnnotatedMasks):
    """The mask codec of DIFT's `eval_davis.py`, with grid cells of `stride` pixels of the working size.

    The script has a channel for every number up to the highest id left on the grid, here there is one per id; a channel
    without a label never wins, so the masks are the same. Void pixels become background (in the script, an object).
    """

    def __init__(self, ids: tuple[int, ...], *, stride: int) -> None:
        self.ids, self.stride = ids, stride

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> SoftLabels:
        """Return the one-hot nearest sample of Pillow. An object that no sample hits is lost, as in the script."""
        self.check(label)
        ids = np.where(label.ids == VOID, np.uint8(BACKGROUND), label.ids)
        return one_hot(sample_nearest(ids, grid), self.ids)

    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Upsample bilinearly to the working size, stretch channels, take the argmax, resize by nearest neighbor.

        The confidence of an object is the mean of its upsampled label, before stretching, over its pixels of the
        working size; 0 without pixels.
        """
        upsampled = F.interpolate(
            soft.detach().to("cpu", torch.float32)[None], scale_factor=self.stride, mode="bilinear", align_corners=False
        )[0]
        # argmax takes NaN for the greatest value, as in the script: see stretch_channels
        winners = stretch_channels(upsampled).argmax(0)
        confidence = {}
        for channel, object_id in enumerate(self.ids, start=1):
            own = upsampled[channel][winners == channel]
            confidence[object_id] = float(own.mean().clamp(0, 1)) if len(own) else 0.0
        ids = np.array([BACKGROUND, *self.ids], np.uint8)[winners.numpy()]
        mask = Mask(sample_nearest(ids, frame.size))
        return Prediction(frame.index, frame.time_s, name=frame.name, mask=mask, confidence=confidence)


def stretch_channels(maps: Float[Tensor, "l y x"]) -> Float[Tensor, "l y x"]:
    """Return each channel, the background too, stretched to 0..1 over the frame (`norm_mask`).

    A channel without a value above 0 stays. A constant positive one becomes 0 / 0, NaN, and wins everywhere; the first
    of several wins, so a background of 1 beats a constant object.
    """
    positive = maps.amax((1, 2), keepdim=True) > 0
    raised = maps - maps.amin((1, 2), keepdim=True)
    return torch.where(positive, raised / raised.amax((1, 2), keepdim=True), maps)
