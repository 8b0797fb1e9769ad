"""Write the keypoints of a clip, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from propagate.errors import InputError, UsageError
from propagate.files.atomic import atomic_path
from propagate.formats.keypoints.coco import CocoEncoder
from propagate.formats.keypoints.csv import CsvEncoder
from propagate.formats.keypoints.json import JsonEncoder
from propagate.formats.keypoints.poses import Encoder, Points
from propagate.types import Keypoints, Prediction

KeypointsFormat = Literal["json", "coco", "csv"]
_ENCODERS: dict[str, type[Encoder]] = {"json": JsonEncoder, "coco": CocoEncoder, "csv": CsvEncoder}


class KeypointsWriter:
    """A context manager that writes one keypoint file atomically, without holding the clip in memory.

        with KeypointsWriter("out/keypoints.json", frame_size=(360, 640)) as writer:
            for prediction in track(...):
                writer.write(prediction)

    Args:
        path: the file to write.
        frame_size: (height, width) in pixels.
        format: "json" (the project's own), "coco" or "csv"; None: by the suffix, .csv or .json.
        exact: write every digit of float32; else pixels to 0.01 and confidences to four digits.

    Raises:
        UsageError: another suffix without a format.
        InputError: the file cannot be written, or no frame was written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        frame_size: tuple[int, int],
        format: KeypointsFormat | None = None,
        exact: bool = False,
    ) -> None:
        self._path = Path(path)
        chosen = format or self._path.suffix.lower().removeprefix(".")
        if chosen not in _ENCODERS:
            raise UsageError(f"{path} does not say which keypoint format is wanted.", "End it in .json or .csv.")
        self._encoder, self._frame_size, self._exact = _ENCODERS[chosen](), frame_size, exact
        self._first: Keypoints | None = None
        self._stack = ExitStack()

    def __enter__(self) -> KeypointsWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._file: TextIO = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def write(self, prediction: Prediction) -> None:
        """Add a frame; ValueError without keypoints, or with other joints than the first one."""
        keypoints = prediction.keypoints
        if keypoints is None or (self._first is not None and keypoints.names != self._first.names):
            raise ValueError(f"frame {prediction.index} does not have the joints of this file")
        if self._first is None:
            self._file.write(self._encoder.begin(keypoints, self._frame_size))
            self._first = keypoints
        else:
            self._file.write(self._encoder.separator)
        self._file.write(self._encoder.frame(prediction, self._points(keypoints)))

    def _points(self, keypoints: Keypoints) -> Points:
        def number(value: np.float32, digits: int) -> float:
            # the fewest digits that read back as the same float32, or rounded, with -0.0 as 0.0
            return float(str(value)) if self._exact else round(float(value), digits) + 0.0

        joints = zip(keypoints.names, keypoints.positions, keypoints.confidence, keypoints.present, strict=True)
        return {name: (number(x, 2), number(y, 2), number(c, 4)) if here else None for name, (x, y), c, here in joints}

    def _finish(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        if self._first is None:
            raise InputError(f"{self._path} was not written: there is no frame.", "Check the range of frames.")
        self._file.write(self._encoder.end())

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def write_keypoints(
    path: str | Path,
    predictions: Iterable[Prediction],
    *,
    frame_size: tuple[int, int],
    format: KeypointsFormat | None = None,
) -> None:
    """Write the keypoints of a whole clip. Arguments and errors as `KeypointsWriter`."""
    with KeypointsWriter(path, frame_size=frame_size, format=format) as writer:
        for prediction in predictions:
            writer.write(prediction)
