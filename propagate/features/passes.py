"""Passes of a batch through the network: their size, parallel pictures on the CPU, and checks of the result.

On the CPU each picture has a thread of its own: oneDNN and torch split operations among threads by rules that differ
between CPUs, and so would the last digits of the result. It is also faster (docs/performance.md).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from propagate.errors import PropagateWarning, UsageError, WeightsError
from propagate.features.anchoring import anchored
from propagate.features.extractor import EnsembleExtractor, FeatureExtractor, Features, Images, Indices
from propagate.geometry import grid_size
from propagate.threads import in_threads, usual_threads

_T = TypeVar("_T")
_MOST_PICTURES = 8  # in parallel; each holds the activations of a pass


class SmallerPassWarning(PropagateWarning):
    """A GPU ran out of memory, and the run continues with smaller passes."""


@dataclass(frozen=True)
class PassSize:
    """The size of a pass: `frames` times `draws` pictures; draws are 1 unless the extractor is an ensemble."""

    frames: int
    draws: int = 1

    @property
    def half(self) -> PassSize | None:
        """Half the draws, or half the frames of a single draw; None for one draw of one frame."""
        if self.draws > 1:
            return PassSize(self.frames, self.draws // 2)
        return PassSize(self.frames // 2) if self.frames > 1 else None

    def __str__(self) -> str:
        numbers = (self.frames, "frame"), (self.draws, "draw")
        return " x ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in numbers)


def largest_pass(extractor: FeatureExtractor, frames: int) -> PassSize:
    """Return the extractor's own pass size for a batch of `frames`; on a CPU a pass has one frame, or one per thread.

    A network rounds differently in another batch: this way the features are the same bit for bit in every batch.
    """
    if getattr(extractor, "side_by_side", False):
        frames = max(frames, min(usual_threads(), _MOST_PICTURES))
    elif is_on_cpu(extractor):
        frames = 1
    return PassSize(frames, extractor.draws_per_pass if isinstance(extractor, EnsembleExtractor) else 1)


def is_on_cpu(extractor: FeatureExtractor) -> bool:
    """Return whether an extractor's `device` is a CPU."""
    return torch.device(getattr(extractor, "device", "meta")).type == "cpu"


class Passes:
    """Wraps an extractor and runs batches in passes of a given size, without changing the features.

    If a GPU runs out of memory, the size is halved, once, with a `SmallerPassWarning`.
    """

    def __init__(self, extractor: FeatureExtractor, size: PassSize) -> None:
        self.stride, self.channels, self.multiple = extractor.stride, extractor.channels, extractor.multiple
        self.size = size
        self._extractor = extractor
        self._may_halve = True

    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FeatureExtractor`; a UsageError if the result is not what that promises.

        Raises torch.OutOfMemoryError if half the pass is still too large, or it cannot be halved.
        """
        return self._halving(len(images), lambda: self._in_parts(images, indices))

    def anchored(self, images: Images, indices: Indices = None) -> Passes:
        """See `AnchoredExtractor`; the anchors share a pass, and errors are those of a call."""
        extractor = self._halving(len(images), lambda: anchored(self._extractor, images, indices))
        fitted = copy.copy(self)
        fitted._extractor = extractor
        return fitted

    def _halving(self, frames: int, compute: Callable[[], _T]) -> _T:
        half = PassSize(min(self.size.frames, frames), self.size.draws).half
        try:
            return self._attempt(compute)
        except torch.OutOfMemoryError:
            if half is None or not self._may_halve:
                raise
        # outside the block: the error holds on to the tensors of the failed pass
        torch.cuda.empty_cache()
        warnings.warn(
            f"The GPU's memory ran out with {self.size} at a time; going on with {half}. The result is the same.",
            SmallerPassWarning,
            stacklevel=3,
        )
        self.size, self._may_halve = half, False
        return self._attempt(compute)

    def _attempt(self, compute: Callable[[], _T]) -> _T:
        """Call a function while the extractor has this pass size's draws."""
        extractor = self._extractor
        if not isinstance(extractor, EnsembleExtractor):
            return compute()
        before, extractor.draws_per_pass = extractor.draws_per_pass, self.size.draws
        try:
            return compute()
        finally:
            extractor.draws_per_pass = before

    def _in_parts(self, images: Images, indices: Indices) -> Features:
        numbers, frames = range(len(images)) if indices is None else indices, self.size.frames
        starts = range(0, len(images), frames)
        parts = [self._pass(images[start : start + frames], numbers[start : start + frames]) for start in starts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pass(self, images: Images, indices: Sequence[int]) -> Features:
        features: object = self._extractor(images, indices)
        expected = (len(images), self.channels, *grid_size((images.shape[-2], images.shape[-1]), self.stride))
        result = f"a {type(features).__name__}"
        if isinstance(features, Tensor):
            if tuple(features.shape) == expected and features.is_floating_point():
                return features
            result = f"a tensor of the shape {tuple(features.shape)} and the type {features.dtype}"
        raise UsageError(
            f"{type(self._extractor).__name__} gives {result} for pictures of the shape {tuple(images.shape)}; with "
            f"its stride ({self.stride}) and channels ({self.channels}) it has to be {expected} of floats.",
            "Repair the extractor; docs/extending.md describes the contract.",
        )


def check_finite(features: Features, extractor: FeatureExtractor, indices: Sequence[int]) -> Features:
    """Return the features of a batch after checking that they are finite, at the cost of one sum per frame.

    Raises:
        WeightsError: a frame's features contain NaN or infinity, which would silently become labels.
    """
    sums = features.flatten(1).sum(1, dtype=torch.float32).tolist()
    for index, total in zip(indices, sums, strict=True):
        if total - total != 0:
            inner: object = extractor
            while hasattr(wrapped := getattr(inner, "_extractor", None), "stride"):  # passes, a cache
                inner = wrapped
            raise WeightsError(
                f"The features of frame {index} from {type(inner).__name__} contain NaN or infinity.",
                "Compute them in float32 with --set features.dtype=float32 where the extractor has that option, and "
                "check its weights.",
            )
    return features


def one_by_one(
    compute: Callable[[Float[Tensor, "n 3 h w"], Sequence[int] | None], Float[Tensor, "n c y x"]],
    images: Images,
    indices: Indices,
) -> Features:
    """Call a thread-safe function with each picture of a batch on the CPU, in parallel, and join its results."""
    if is_in_torch_dispatch_mode():  # a dry run: its modes belong to this thread, and all pictures count
        return compute(images, indices)
    numbers = range(len(images)) if indices is None else indices
    results: list[Tensor] = [images] * len(images)

    def one(place: int) -> None:
        with torch.no_grad():
            results[place] = compute(images[place : place + 1], numbers[place : place + 1])

    in_threads(usual_threads())(one, list(range(len(images))))
    return results[0] if len(results) == 1 else torch.cat(results)
