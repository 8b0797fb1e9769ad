"""Extractors whose features are made for one clip: what they need of its pictures is learned from an anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.features.extractor import FeatureExtractor


@runtime_checkable
class AnchoredExtractor(FeatureExtractor, Protocol):
    """An extractor that learns something (the basis of a PCA) from the pictures that the others are compared with.

    Features of two clips, with two anchors, cannot be compared. The extractor itself learns nothing and can go on to
    the next clip; called without an anchor where it needs one, it raises a UsageError.
    """

    def anchored(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None) -> FeatureExtractor:
        """The extractor for one clip; this one where there is nothing to learn.

        Args:
            images: the anchors, as for a call. For a clip it is its first frame; for pictures that are matched with
                one another, all of them together.
            indices: their indices.

        Raises:
            UsageError: they are too small for what is asked.
        """
        ...


def anchored(
    extractor: FeatureExtractor, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
) -> FeatureExtractor:
    """The extractor for one clip (see `AnchoredExtractor.anchored`); most need no anchor and are returned as they are.

    Raises:
        UsageError: the pictures are too small for what is asked.
    """
    return extractor.anchored(images, indices) if isinstance(extractor, AnchoredExtractor) else extractor


def no_anchor(extractor: FeatureExtractor) -> UsageError:
    """What to raise where an anchor is needed and was not given."""
    return UsageError(
        f"{type(extractor).__name__} reduces features by PCA, and its basis has not been fitted.",
        "Call `anchored(extractor, first_frame)`, as `track` does, and use what it returns; or leave out the PCA.",
    )
