"""What every backbone is to the rest of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class FeatureExtractor(Protocol):
    """Pictures in, a grid of features out.

    Deterministic for given options and seed, whatever the batch size and the order of frames. A tensor that a call
    makes is not kept for the next one: memory is estimated by a call with tensors without content.

    Attributes:
        stride: pixels per grid cell.
        channels: of a feature.
        multiple: both sides of the pictures have to be multiples of this; the pipeline sees to it.
    """

    stride: int
    channels: int
    multiple: int

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """Features of a batch.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1].
            indices: the frames' indices, for extractors whose result depends on them (fresh noise).

        Returns:
            (B, channels, ceil(H / stride), ceil(W / stride)), on the extractor's device, not normalized.
        """
        ...


@runtime_checkable
class EnsembleExtractor(FeatureExtractor, Protocol):
    """An extractor that can take the draws of an ensemble through the network together or one after the other.

    Attributes:
        draws_per_pass: draws that go through together, at most all; may be changed between calls. Memory grows with
            it, the features do not depend on it beyond rounding.
    """

    draws_per_pass: int


@runtime_checkable
class SideBySideExtractor(FeatureExtractor, Protocol):
    """An extractor that can compute the pictures of a batch side by side, each on one thread.

    Attributes:
        side_by_side: it does; then as many pictures as there are threads keep them all busy.
    """

    side_by_side: bool


@runtime_checkable
class FinerExtractor(FeatureExtractor, Protocol):
    """An extractor whose network, in the pass that makes the features, can make a map of smaller cells as well.

    Attributes:
        finer_stride: pixels per cell of that map, a divisor of `stride`; None: not with these options.
        finer_channels: of a feature of that map.
    """

    finer_stride: int | None
    finer_channels: int

    def with_finer(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """Both maps of a batch, packed (`propagate.features.finer.pack`): channels of a call, then the finer ones.

        Args:
            images, indices: as for a call; both sides have to be multiples of `stride`, too.

        Returns:
            (B, channels + f^2 * finer_channels, H / stride, W / stride), f being stride / finer_stride.
        """
        ...
