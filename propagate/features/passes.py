"""How much of a batch goes through the network at a time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.errors import PropagateWarning, UsageError
from propagate.features.anchoring import anchored
from propagate.features.extractor import EnsembleExtractor, FeatureExtractor, SideBySideExtractor
from propagate.features.side_by_side import pictures_at_once
from propagate.geometry import grid_size

_T = TypeVar("_T")


class SmallerPassWarning(PropagateWarning):
    """A GPU's memory ran out, and the run goes on with less at a time."""


@dataclass(frozen=True)
class PassSize:
    """What goes through the network together: `frames` times `draws` pictures.

    Attributes:
        frames: of a batch.
        draws: of the noise, for an extractor that has a choice (`EnsembleExtractor`), else 1.
    """

    frames: int
    draws: int = 1

    @property
    def half(self) -> PassSize | None:
        """Half the draws, or of a single draw half the frames; None where it is one draw of one frame."""
        if self.draws > 1:
            return PassSize(self.frames, self.draws // 2)
        return PassSize(self.frames // 2) if self.frames > 1 else None

    def __str__(self) -> str:
        return f"{_counted(self.frames, 'frame')} x {_counted(self.draws, 'draw')}"


def largest_pass(extractor: FeatureExtractor, frames: int) -> PassSize:
    """The extractor's own choice for a batch of so many frames; on a CPU one after the other, or side by side.

    In another batch a network rounds otherwise: so the features are the same bit for bit whatever the batch.
    """
    if isinstance(extractor, SideBySideExtractor) and extractor.side_by_side:
        frames = max(frames, pictures_at_once())
    elif is_on_cpu(extractor):
        frames = 1
    return PassSize(frames, extractor.draws_per_pass if isinstance(extractor, EnsembleExtractor) else 1)


def is_on_cpu(extractor: FeatureExtractor) -> bool:
    """Return whether an extractor says that it computes on a CPU."""
    return torch.device(getattr(extractor, "device", "meta")).type == "cpu"


class Passes:
    """An extractor that takes a batch through the network in passes of a given size. The features stay the same.

    Where a GPU's memory runs out, the pass is halved, once, with a `SmallerPassWarning`.

    Args:
        extractor: the extractor; it is left as it is.
        size: of a pass.
    """

    def __init__(self, extractor: FeatureExtractor, size: PassSize) -> None:
        self.stride, self.channels, self.multiple = extractor.stride, extractor.channels, extractor.multiple
        self.size = size
        self._extractor = extractor
        self._may_halve = True

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`.

        Raises:
            UsageError: the extractor gives something else than `FeatureExtractor` says.
            torch.OutOfMemoryError: half the pass is still too much, or there is nothing to halve.
        """
        return self._halving(len(images), lambda: self._in_parts(images, indices))

    def anchored(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None) -> Passes:
        """See `AnchoredExtractor`; the anchors go through together.

        Raises:
            UsageError: they are too small for what is asked.
            torch.OutOfMemoryError: as for a call.
        """
        extractor = self._halving(len(images), lambda: self._anchored(images, indices))
        fitted = copy.copy(self)
        fitted._extractor = extractor
        return fitted

    def _halving(self, frames: int, compute: Callable[[], _T]) -> _T:
        half = PassSize(min(self.size.frames, frames), self.size.draws).half
        try:
            return compute()
        except torch.OutOfMemoryError:
            if half is None or not self._may_halve:
                raise
        # out of the block: the error held on to the tensors of the pass that failed
        torch.cuda.empty_cache()
        warnings.warn(
            f"The GPU's memory ran out with {self.size} at a time; going on with {half}. The result is the same.",
            SmallerPassWarning,
            stacklevel=3,
        )
        self.size, self._may_halve = half, False
        return compute()

    def _anchored(self, images: Tensor, indices: Sequence[int] | None) -> FeatureExtractor:
        with _draws_per_pass(self._extractor, self.size.draws):
            return anchored(self._extractor, images, indices)

    def _in_parts(self, images: Tensor, indices: Sequence[int] | None) -> Tensor:
        numbers = range(len(images)) if indices is None else indices
        with _draws_per_pass(self._extractor, self.size.draws):
            parts = [
                self._pass(images[start : start + self.size.frames], numbers[start : start + self.size.frames])
                for start in range(0, len(images), self.size.frames)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pass(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        features = self._extractor(images, indices)
        grid = grid_size((images.shape[-2], images.shape[-1]), self.stride)
        expected = (len(images), self.channels, *grid)
        if not isinstance(features, Tensor) or tuple(features.shape) != expected or not features.is_floating_point():
            found = (
                f"a tensor of the shape {tuple(features.shape)} and the type {features.dtype}"
                if isinstance(features, Tensor)
                else f"a {type(features).__name__}"
            )
            raise UsageError(
                f"{type(self._extractor).__name__} gives {found} for pictures of the shape {tuple(images.shape)}; with "
                f"its stride ({self.stride}) and channels ({self.channels}) it has to be {expected} of floats.",
                "Repair the extractor; docs/extending.md says what one is.",
            )
        return features


@contextmanager
def _draws_per_pass(extractor: FeatureExtractor, draws: int) -> Iterator[None]:
    if not isinstance(extractor, EnsembleExtractor):
        yield
        return
    before = extractor.draws_per_pass
    extractor.draws_per_pass = draws
    try:
        yield
    finally:
        extractor.draws_per_pass = before


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
