"""The files of a run. Each kind is a context manager that yields a function to call for every frame."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from propagate import formats
from propagate.app.terminal.console import Terminal
from propagate.errors import InputError, PropagateError, PropagateWarning, UsageError
from propagate.files.atomic import atomic_path
from propagate.files.lock import LOCK
from propagate.files.names import real_path
from propagate.formats.output.folder import MASKS, SOFT
from propagate.formats.output.run_record import json_text
from propagate.printable import printable
from propagate.types import Frame, FrameInfo, Prediction

RATE_WITHOUT_CLOCK = 25.0  # frames/s of the video made from a folder of pictures
_RESULTS = ("confidence.csv", "keypoints.csv", "keypoints.json", "overlay.mp4", "run.json")
_MAX_NAME = 251  # bytes without the suffix, for every common file system

Write = Callable[[Frame, Prediction], None]


def picture_name(frame: Frame) -> str:
    """Return the stem of a frame's files: its picture's name, or its number with five digits."""
    name = frame.name or ""
    plain = not name.startswith(".") and not set(name) & set("/\\\0") and 0 < len(os.fsencode(name)) <= _MAX_NAME
    return name if plain else f"{frame.index:05d}"


@contextmanager
def mask_pictures(folder: Path) -> Iterator[Write]:
    """Write an indexed PNG per frame, named by `picture_name`."""
    formats.prepare_output(folder, overwrite=True)

    def write(frame: Frame, prediction: Prediction) -> None:
        assert prediction.mask is not None
        formats.write_mask(folder / f"{picture_name(frame)}.png", prediction.mask)

    yield write


@contextmanager
def csv_table(path: Path) -> Iterator[Any]:
    """Yield a CSV writer for a file that is written atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield csv.writer(file, lineterminator="\n")


def write_png(path: Path, pixels: UInt8[ndarray, "h w 3"], **options: Any) -> None:
    """Write a picture atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", **options)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON document atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")


@contextmanager
def confidence_table(path: Path) -> Iterator[Write]:
    """Write a CSV with the columns frame, object, confidence, and name for named pictures."""
    with csv_table(path) as rows:
        has_head = False

        def write(frame: Frame, prediction: Prediction) -> None:
            nonlocal has_head
            name = [] if frame.name is None else [printable(frame.name)]
            if not has_head:
                rows.writerow(["frame", "object", "confidence", *(["name"] if name else [])])
                has_head = True
            rows.writerows([frame.index, key, f"{value:.4f}", *name] for key, value in prediction.confidence.items())

        yield write


@contextmanager
def keypoints_file(path: Path, frame_size: tuple[int, int]) -> Iterator[Write]:
    """Write the keypoints of all frames, as JSON or CSV by the suffix."""
    with formats.KeypointsWriter(path, frame_size=frame_size) as writer:
        yield lambda _frame, prediction: writer.write(prediction)


class OverlayWarning(PropagateWarning):
    """A video for people could not be written; no result depends on it."""


class OptionalVideo:
    """A `VideoWriter` that warns on failure and leaves no file: drawing never fails a run."""

    def __init__(self, path: Path, rate: float, crf: int = 20) -> None:
        self._path, self._rate, self._crf = path, rate, crf
        self._video: formats.VideoWriter | None = None

    def __enter__(self) -> OptionalVideo:
        with self._warning():
            self._video = formats.VideoWriter(self._path, self._rate, crf=self._crf).__enter__()
        return self

    def write(self, pixels: UInt8[ndarray, "h w 3"], time_s: float) -> None:
        """Add a frame, unless an earlier one failed."""
        if self._video is not None:
            with self._warning():
                self._video.write(pixels, time_s)

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            video, self._video = self._video, None
            if video is not None:
                with suppress(Exception):
                    video.__exit__(type(error), error, error.__traceback__)
            cause = error.message if isinstance(error, PropagateError) else f"{type(error).__name__}: {error}."
            message = f"{self._path.name} was not written; everything else is complete. {printable(cause)}"
            warnings.warn(message, OverlayWarning, stacklevel=4)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if (video := self._video) is not None:
            self._video = None
            with self._warning():
                video.__exit__(kind, error, trace)


@contextmanager
def overlay_video(path: Path, rate: float, crf: int) -> Iterator[Write]:
    """Draw the result over the video."""
    with OptionalVideo(path, rate, crf) as video:

        def write(frame: Frame, prediction: Prediction) -> None:
            pixels = frame.pixels
            if prediction.mask is not None:
                pixels = formats.draw_mask(pixels, prediction.mask)
            if prediction.keypoints is not None:
                pixels = formats.draw_keypoints(pixels, prediction.keypoints)
            video.write(pixels, frame.time_s)

        yield write


@contextmanager
def soft_maps(folder: Path) -> Iterator[Write]:
    """Write an .npz per frame: `soft`, (L, h, w) float32 on the grid, and `channels`, (L,) ids or names of joints."""
    formats.prepare_output(folder, overwrite=True)

    def write(frame: Frame, prediction: Prediction) -> None:
        assert prediction.soft is not None
        with atomic_path(folder / f"{picture_name(frame)}.npz") as temporary:
            channels = np.array(["background", *map(str, prediction.confidence)])
            np.savez_compressed(temporary, soft=prediction.soft.numpy(), channels=channels)

    yield write


class Outputs:
    """All files of a run, opened at the first frame.

    On exit every file is finished with its frames, whatever stopped the run. Files are discarded only if writing them
    failed, or if an interrupt must not wait; `lost` has sentences on files that could not be finished.
    """

    def __init__(self, sinks: Sequence[AbstractContextManager[Write]]) -> None:
        self.frames, self.lost = 0, list[str]()
        self._sinks = sinks
        self._opened: list[tuple[AbstractContextManager[Write], Write]] = []
        self._broken: AbstractContextManager[Write] | None = None

    def __enter__(self) -> Outputs:
        return self

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Add a frame to every file."""
        if not self._opened:
            for sink in self._sinks:
                self._opened.append((sink, sink.__enter__()))
        for sink, write in self._opened:
            self._broken = sink
            write(frame, prediction)
        self._broken = None
        self.frames += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        hurry = error is not None and not isinstance(error, Exception)
        failure: PropagateError | None = None
        for sink, _ in self._opened:
            try:
                sink.__exit__(*((kind, error, trace) if hurry or sink is self._broken else (None, None, None)))
            except PropagateError as caught:
                self.lost.append(caught.message)
                failure = failure or caught
        if error is None and failure is not None:
            raise failure


def protect_inputs(output: Path, info: FrameInfo, labels: Sequence[Path], *, overlay: bool) -> None:
    """Refuse results that would replace the video or the labels, except the first frame's own mask."""
    first = f"{info.names[0]}.png" if info.names else f"{info.indices[0] if info.indices else 0:05d}.png"
    own = real_path(output) / MASKS / first
    results = [name for name in _RESULTS if overlay or name != "overlay.mp4"]
    read = [Path(info.source), *(label for label in labels if real_path(label) != own)]
    refuse_replacing(output, read, [*results, MASKS, SOFT])


def refuse_replacing(output: Path, read: Iterable[Path], written: Iterable[str]) -> None:
    """Refuse results that would replace inputs; `written` names files and folders in the output folder."""
    places = {real_path(output / name) for name in written}
    for path in read:
        if places & {real_path(path), *real_path(path).parents}:
            raise UsageError(f"The results in {output} would replace the input {path}.", "Choose another --output.")


@contextmanager
def output_folder(folder: Path, terminal: Terminal, *, overwrite: bool) -> Iterator[None]:
    """Create and lock the output folder; if the block fails, remove new folders that are empty."""
    candidates = (folder / MASKS, folder / SOFT, folder, *folder.parents)
    new = [path for path in candidates if not path.exists()]
    try:
        with formats.held_output(folder, overwrite=overwrite) as notes:
            terminal.notes(notes)
            if taken := [folder / name for name in _RESULTS if (folder / name).is_dir()]:
                raise InputError(f"{taken[0]} is a folder, where a file is written.", "Choose another --output.")
            yield
    except BaseException:
        for path in new:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return inode and modification time of each result in a folder, which change when it is replaced."""
    paths = [*folder.glob("*"), *folder.glob(f"{MASKS}/*.png"), *folder.glob(f"{SOFT}/*.npz")]
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths if path.is_file() and path.name != LOCK
    }
