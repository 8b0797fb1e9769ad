"""Frames from any iterable of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from propagate.errors import InputError, UsageError
from propagate.types import Frame


class _ArrayFrames:
    """Frames of an iterable; can be iterated again if the iterable can."""

    def __init__(self, arrays: Iterable[np.ndarray | Frame], rate: float) -> None:
        self._arrays, self._rate = arrays, rate

    def __iter__(self) -> Iterator[Frame]:
        first: Frame | None = None
        index: int | None = None
        for number, item in enumerate(self._arrays):
            pixels = _checked(item.pixels if isinstance(item, Frame) else item, number)
            frame = item if isinstance(item, Frame) else Frame(pixels, number, number / self._rate)
            first = first or frame
            if frame.size != first.size:
                raise InputError(
                    f"frame {number} is {frame.size[1]}x{frame.size[0]}, the frames before it are "
                    f"{first.size[1]}x{first.size[0]}.",
                    "Resize the arrays to one size.",
                )
            if frame.index == index:
                raise InputError(f"frame {number} has the index {index}, as the frame before it.", "Number the frames.")
            index = frame.index
            yield frame


def frames_from_arrays(arrays: Iterable[np.ndarray | Frame], rate: float = 25.0) -> Iterable[Frame]:
    """Return frames from arrays, numbered from 0, as an iterable that can be iterated as often as `arrays` can.

    Arrays are (H, W, 3) uint8 RGB, all of one size; iterating raises an InputError for others. A `Frame` passes through
    with its own index and time. `rate` is in frames per second, above 0 (else UsageError), for the times of arrays.
    """
    if not rate > 0:
        raise UsageError(f"rate {rate} is not a number of frames per second.", "Give a number above 0.")
    return _ArrayFrames(arrays, rate)


def _checked(array: object, number: int) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"frame {number} has the type {type(array).__name__}; wanted: a numpy array.",
            "Convert it with numpy.asarray.",
        )
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"frame {number} has shape {array.shape}.", "Give (height, width, 3) RGB.")
    if array.dtype != np.uint8:
        raise InputError(f"frame {number} has dtype {array.dtype}.", "Give uint8 from 0 to 255.")
    return array
