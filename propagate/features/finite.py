"""Features that are no numbers are found where they are made: later they would become labels without a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.errors import WeightsError
from propagate.features.extractor import FeatureExtractor


def check_finite(
    features: Float[Tensor, "b c y x"], extractor: FeatureExtractor, indices: Sequence[int]
) -> Float[Tensor, "b c y x"]:
    """Return the features, of which every number is finite.

    Costs one sum per frame: NaN and infinity stay in it.

    Args:
        features: of a batch.
        extractor: what made them, for the message.
        indices: of the frames.

    Raises:
        WeightsError: one is not.
    """
    sums = features.flatten(1).sum(1, dtype=torch.float32).tolist()
    for index, total in zip(indices, sums, strict=True):
        if total - total != 0:
            raise WeightsError(
                f"The features of frame {index} that {_name(extractor)} gives hold NaN or infinity.",
                "Compute them in float32 with --set features.dtype=float32 where the extractor has that option, and "
                "check its weights.",
            )
    return features


def _name(extractor: object) -> str:
    """The class of what is inside of passes, a cache and the like."""
    while (inner := getattr(extractor, "_extractor", None)) is not None and hasattr(inner, "stride"):
        extractor = inner
    return type(extractor).__name__
