"""AttentionLabels: the counterpart of `LabelPropagator` for features that are labels (`LabelReader`)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.propagation.window import Window

_HALF = 0.5  # threshold of a label's place, as a part of its maximum
_LEAST_PEAK = 0.1  # if the annotated frame attends less to its own label, the attention has no scale


class AttentionLabels:
    """Soft labels from attention, frame by frame; earlier frames only restrict where a label may be.

    The annotated frame's own attention to a label is scaled to the height of a fresh label there (1 for a mask; a
    joint's Gaussian sums to 1 over the grid and is lower), so that codecs read attention like transferred labels.

    Args:
        window: "square", "circle" or "none": use attention only this near to the label's cells in the frame before,
            those with half of its maximum.
        radius: radius of the window in grid cells.
    """

    def __init__(self, *, window: Literal["square", "circle", "none"] = "none", radius: float = 12) -> None:
        self.window = None if window == "none" else Window(window, radius)
        self._gain: Float[Tensor, "j 1 1"] | None = None
        self._before: Float[Tensor, "j h w"] | None = None

    def anchor(self, features: Float[Tensor, "j h w"], labels: Float[Tensor, "l h w"]) -> Float[Tensor, "l h w"]:
        """Store an annotated frame and return its labels, or raise a UsageError if it has other objects."""
        if len(labels) != len(features) + 1:
            raise UsageError(
                f"The anchors have {len(labels) - 1} objects together, the first frame has {len(features)}: prompts "
                "are learned on the first frame.",
                "Start at a frame with all objects, with --from-frame.",
            )
        self._before = labels[1:].to(features.device)
        if self._gain is None:
            self._gain = _gain(features.float(), self._before)
        return labels

    def step(self, features: Float[Tensor, "j h w"]) -> Float[Tensor, "l h w"]:
        """Return the soft labels of the next frame from the attention to each channel's prompt, in [0, 1].

        The result is (1 + j, h, w) float32; channel 0, the background, is 1 minus the maximum of the others. Without an
        anchor, it raises a ValueError.
        """
        soft = self.predict(features)
        self._before = soft[1:]
        return soft

    def predict(self, features: Float[Tensor, "j h w"]) -> Float[Tensor, "l h w"]:
        """Return the result of `step` without storing it."""
        if self._before is None or self._gain is None:
            raise ValueError("step() before anchor(): give an annotated frame first")
        soft = features.float() * self._near(self._before, features) * self._gain
        background = (1 - soft.amax(0, keepdim=True)).clamp(min=0)
        return torch.cat([background, soft])

    def _near(self, before: Float[Tensor, "j h w"], features: Float[Tensor, "j h w"]) -> Float[Tensor, "j h w"]:
        """Return 1 in the window around each label's place before; 1 everywhere for a label without a place."""
        if self.window is None:
            return torch.ones_like(features)
        reach = max(self.window.reach, 0)
        offsets = torch.arange(-reach, reach + 1, device=features.device)
        inside = self.window.contains(offsets[:, None], offsets[None, :]).to(features)
        highest = before.flatten(1).amax(1)[:, None, None]
        place: Bool[Tensor, "j h w"] = (before >= _HALF * highest) & (highest > 0)
        spread = F.conv2d(place.to(features)[:, None], inside[None, None], padding=reach)[:, 0]
        return ((spread > 0.5) | (highest <= 0)).to(features)


def _gain(features: Float[Tensor, "j h w"], labels: Float[Tensor, "j h w"]) -> Float[Tensor, "j 1 1"]:
    """Return the factor from attention to soft labels, per channel; absent joints get a peak of 1."""
    heights, peaks = (maps.flatten(1).amax(1) for maps in (labels, features))
    present = heights > 0
    if not bool(present.any()):
        return torch.ones(len(features), 1, 1, device=features.device)
    height = heights[present].amin()  # a joint at the frame's border is cut there, and higher
    return (height / torch.where(present, peaks.clamp(min=_LEAST_PEAK), 1.0))[:, None, None]
