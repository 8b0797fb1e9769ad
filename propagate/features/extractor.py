"""The protocols that connect every backbone to the rest of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]
Features = Float[Tensor, "b c y x"]
Indices = Sequence[int] | None


@runtime_checkable
class FeatureExtractor(Protocol):
    """Turns pictures into a grid of features.

    The result is deterministic for given options and seed, whatever the batch size and the order of frames. A call
    must not store tensors for the next one: memory is estimated by a dry run, whose tensors have no content.
    """

    stride: int  # pixels per grid cell
    channels: int  # length of a feature
    multiple: int  # both sides of the pictures must be multiples of this; the pipeline resizes them

    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """Compute the features of a batch.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1].
            indices: frame indices, for extractors that draw fresh noise for each frame.

        Returns:
            (B, channels, ceil(H / stride), ceil(W / stride)), on the extractor's device, not normalized.
        """


@runtime_checkable
class EnsembleExtractor(FeatureExtractor, Protocol):
    """An extractor that can run the draws of an ensemble together or one after the other."""

    draws_per_pass: int  # may be changed between calls; memory grows with it, features change by rounding only


@runtime_checkable
class SideBySideExtractor(FeatureExtractor, Protocol):
    """An extractor that can compute the pictures of a batch in parallel, one per thread."""

    side_by_side: bool  # whether it does


@runtime_checkable
class FinerExtractor(FeatureExtractor, Protocol):
    """An extractor whose network also produces a map of smaller cells in the same pass."""

    finer_stride: int | None  # pixels per cell of that map, a divisor of `stride`; None: these options have no such map
    finer_channels: int  # length of a feature of that map

    def with_finer(self, images: Images, indices: Indices = None) -> Features:
        """Compute both maps, packed by `propagate.features.finer.pack`; the sides must be multiples of `stride`, too.

        Returns:
            (B, channels + f^2 * finer_channels, H / stride, W / stride), where f is stride / finer_stride.
        """


def check_sides(images: Images, multiple: int) -> None:
    """Raise a ValueError if the sides of pictures are not multiples of a number."""
    if images.shape[-2] % multiple or images.shape[-1] % multiple:
        raise ValueError(f"sides must be multiples of {multiple}, not {tuple(images.shape[-2:])}")
