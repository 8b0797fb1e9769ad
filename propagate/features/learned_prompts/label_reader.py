"""Extractors whose features are labels: they learn the first frame's label and find it in other frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from propagate.features.extractor import FeatureExtractor
from propagate.types import Label

# called after a learning step with the joint or object, its loss, and the number of steps (several if it stops early)
OnStep = Callable[[str, float, int], None]


@runtime_checkable
class LabelReader(FeatureExtractor, Protocol):
    """An extractor that reads a label from each frame alone. Nothing is transferred from frame to frame.

    Once it knows a label, channel i of its features tells how much each cell belongs to the label's channel i + 1 (an
    object, a joint), from 0 to 1.
    """

    def for_label(
        self,
        picture: Float[Tensor, "3 h w"],
        label: Label,
        frame_size: tuple[int, int],
        on_step: OnStep | None = None,
    ) -> LabelReader:
        """Return an extractor that finds this label; this one does not change.

        Args:
            picture: the annotated frame, as for a call.
            label: its mask or keypoints.
            frame_size: (height, width) of the label's frame.
            on_step: see `OnStep`.

        Raises:
            InputError: the label is empty, or does not match the loaded prompts.
        """

    def save(self, path: Path) -> None:
        """Write what was learned to a file for other clips; raises OSError if it cannot be written."""

    def learning_steps(self, label: Label) -> int:
        """Return the most steps that `for_label` takes; 0 if there is nothing to learn."""

    def dry_run_step(self, size: tuple[int, int]) -> Tensor:
        """Run a learning step on a picture of this size without content, to estimate its memory."""
