"""AttentionLabels: what `LabelPropagator` is to features, for features that are the labels (`LabelReader`)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.propagation.window import Window

# of a label's greatest value: where it is more, there the label is
_HALF = 0.5
# an annotated frame that attends less than this to its own label tells nothing of how much others should
_LEAST_PEAK = 0.1


class AttentionLabels:
    """Soft labels from attention, a frame at a time; of the frames before, only where the labels were last counts.

    As much attention as the annotated frame itself gives to a label becomes the height of a fresh label there (1 for a
    mask; a joint's Gaussian sums to 1 over the grid and is lower), so that the codecs read attention as they read what
    was transferred.

    Args:
        window: "square", "circle" or "none": attention counts only this near to where the label was in the frame
            before, that is, to the cells with half of its greatest value there.
        radius: of the window, in grid cells.
    """

    def __init__(self, *, window: Literal["square", "circle", "none"] = "none", radius: float = 12) -> None:
        self.window = None if window == "none" else Window(window, radius)
        self._gain: Float[Tensor, "j 1 1"] | None = None
        self._before: Float[Tensor, "j h w"] | None = None

    def anchor(self, features: Float[Tensor, "j h w"], labels: Float[Tensor, "l h w"]) -> Float[Tensor, "l h w"]:
        """Take in an annotated frame. Returns its labels as they were given.

        Raises:
            UsageError: the labels have objects that the first frame's label did not have.
        """
        if len(labels) != len(features) + 1:
            raise UsageError(
                f"The anchors have {len(labels) - 1} objects together, the first frame has {len(features)}: prompts "
                "are learned on the first frame.",
                "Start at a frame with all objects, with --from-frame.",
            )
        if self._gain is None:
            self._gain = _gain(features.float(), labels[1:].to(features.device))
        self._before = labels[1:].to(features.device)
        return labels

    def step(self, features: Float[Tensor, "j h w"]) -> Float[Tensor, "l h w"]:
        """The soft labels of the next frame.

        Args:
            features: attention to each channel's prompt, in [0, 1].

        Returns:
            (1 + j, h, w) float32; channel 0, the background, is what the greatest of the others leaves of 1.

        Raises:
            ValueError: no anchor has been given yet.
        """
        soft = self.predict(features)
        self._before = soft[1:]
        return soft

    def predict(self, features: Float[Tensor, "j h w"]) -> Float[Tensor, "l h w"]:
        """The soft labels that `step` would give; nothing is kept. Arguments, result and errors as `step`."""
        if self._before is None or self._gain is None:
            raise ValueError("step() before anchor(): give an annotated frame first")
        soft = features.float() * self._near(self._before, features) * self._gain
        background = (1 - soft.amax(0, keepdim=True)).clamp(min=0)
        return torch.cat([background, soft])

    def _near(self, before: Float[Tensor, "j h w"], features: Float[Tensor, "j h w"]) -> Float[Tensor, "j h w"]:
        """1 in the window around each label's place before; all over the grid for one that was nowhere."""
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
    """From attention to soft labels, per channel; a joint that is absent in the frame has attention 1 for a peak."""
    heights, peaks = (maps.flatten(1).amax(1) for maps in (labels, features))
    present = heights > 0
    if not bool(present.any()):
        return torch.ones(len(features), 1, 1, device=features.device)
    height = heights[present].amin()  # that of a joint at the frame's border, which is cut there, is higher
    return (height / torch.where(present, peaks.clamp(min=_LEAST_PEAK), 1.0))[:, None, None]
