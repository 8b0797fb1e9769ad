"""Extractors whose features are the labels themselves: they learn the first frame's label, and find it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from propagate.features.extractor import FeatureExtractor
from propagate.types import Label

# called after a step of learning with what is learned, its loss, and how many steps that was (several where it stops
# early and leaves some out)
OnStep = Callable[[str, float, int], None]


@runtime_checkable
class LabelReader(FeatureExtractor, Protocol):
    """An extractor that reads a label from each frame alone. Nothing is transferred from frame to frame.

    Once it knows a label, channel i of its features is how much each cell belongs to the label's channel i + 1 (an
    object, a joint), from 0 to 1.
    """

    def for_label(
        self,
        picture: Float[Tensor, "3 h w"],
        label: Label,
        frame_size: tuple[int, int],
        on_step: OnStep | None = None,
    ) -> LabelReader:
        """The extractor that finds this label; this one stays as it is.

        Args:
            picture: the annotated frame, as for a call.
            label: its mask or keypoints.
            frame_size: (height, width) of the frame that the label is for.
            on_step: see `OnStep`.

        Raises:
            InputError: the label has nothing that could be learned, or does not fit what was learned before.
        """
        ...

    def save(self, path: Path) -> None:
        """Write what was learned to a file, to be used on other clips.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def learning_steps(self, label: Label) -> int:
        """Steps that `for_label` takes at most; 0 where it has nothing to learn."""
        ...

    def rehearse(self, size: tuple[int, int]) -> Tensor:
        """A step of learning on a picture of this size without content, for an estimate of its memory."""
        ...
