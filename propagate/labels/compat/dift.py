"""The mask codec of DIFT's and DINO's DAVIS scripts, for comparisons with their numbers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.labels.annotated import AnnotatedMasks
from propagate.labels.masks import one_hot
from propagate.labels.resampling import sample_nearest
from propagate.types import BACKGROUND, VOID, Frame, Mask, Prediction


class DiftMaskCodec(AnnotatedMasks):
    """The mask codec of DIFT's `eval_davis.py`, with grid cells of `stride` pixels of the working size.

    The script has a channel for every number up to the highest id left on the grid, here there is one per id; a channel
    without a label never wins, so the masks are the same. Void pixels become background (in the script, an object).
    """

    def __init__(self, ids: tuple[int, ...], *, stride: int) -> None:
        self.ids = ids
        self.stride = stride

    def encode(self, label: Mask, frame_size: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "l h w"]:
        """Return the one-hot nearest sample of Pillow. An object that no sample hits is lost, as in the script."""
        self.check(label)
        ids = np.where(label.ids == VOID, np.uint8(BACKGROUND), label.ids)
        return one_hot(sample_nearest(ids, grid), self.ids)

    def decode(self, soft: Float[Tensor, "l h w"], frame: Frame) -> Prediction:
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
