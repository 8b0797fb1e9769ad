"""What a run writes, frame by frame: each kind of file is a context manager that gives a function to call."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.app.terminal.console import Terminal
from propagate.errors import InputError, PropagateError, PropagateWarning, UsageError
from propagate.files.atomic import atomic_path
from propagate.files.lock import LOCK
from propagate.files.names import real_path
from propagate.formats import (
    KeypointsWriter,
    VideoWriter,
    draw_keypoints,
    draw_mask,
    held_output,
    prepare_output,
    write_mask,
)
from propagate.formats.output.folder import MASKS, SOFT
from propagate.printable import printable
from propagate.types import Frame, FrameInfo, Prediction

_RESULTS = ("confidence.csv", "keypoints.csv", "keypoints.json", "overlay.mp4", "run.json")
_LONGEST_NAME = 251  # bytes, with the suffix what every common file system takes

Write = Callable[[Frame, Prediction], None]


def picture_name(frame: Frame) -> str:
    """What the files of a frame are called: as its picture, or by its number with five digits."""
    name = frame.name or ""
    plain = not name.startswith(".") and not set(name) & set("/\\\0") and 0 < len(os.fsencode(name)) <= _LONGEST_NAME
    return name if plain else f"{frame.index:05d}"


@contextmanager
def mask_pictures(folder: Path) -> Iterator[Write]:
    """Indexed PNG, each called as `picture_name` says."""
    prepare_output(folder, overwrite=True)

    def write(frame: Frame, prediction: Prediction) -> None:
        assert prediction.mask is not None
        write_mask(folder / f"{picture_name(frame)}.png", prediction.mask)

    yield write


@contextmanager
def confidence_table(path: Path) -> Iterator[Write]:
    """CSV with the columns frame, object, confidence, and name where frames are pictures that have one."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        begun = False

        def write(frame: Frame, prediction: Prediction) -> None:
            nonlocal begun
            named = [] if frame.name is None else [printable(frame.name)]
            if not begun:
                rows.writerow(["frame", "object", "confidence", *(["name"] if named else [])])
                begun = True
            rows.writerows([frame.index, key, f"{value:.4f}", *named] for key, value in prediction.confidence.items())

        yield write


@contextmanager
def keypoints_file(path: Path, frame_size: tuple[int, int]) -> Iterator[Write]:
    """The keypoints of all frames, as JSON or CSV by the suffix."""
    with KeypointsWriter(path, frame_size=frame_size) as writer:
        yield lambda _frame, prediction: writer.write(prediction)


class OverlayWarning(PropagateWarning):
    """A video for people could not be written; no result depends on it."""


class ForgivingVideo:
    """A `VideoWriter` whose failure is an `OverlayWarning` and leaves no file: what is drawn never fails a run.

    Args:
        path, rate, crf: see `VideoWriter`.
    """

    def __init__(self, path: Path, rate: float, crf: int = 20) -> None:
        self._path, self._rate, self._crf = path, rate, crf
        self._video: VideoWriter | None = None

    def __enter__(self) -> ForgivingVideo:
        try:
            self._video = VideoWriter(self._path, self._rate, crf=self._crf).__enter__()
        except Exception as error:
            self._give_up(error)
        return self

    def write(self, pixels: UInt8[ndarray, "h w 3"], time_s: float) -> None:
        """Add a frame; nothing where one before it could not be written."""
        if self._video is not None:
            try:
                self._video.write(pixels, time_s)
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        video, self._video = self._video, None
        if video is not None:
            with suppress(Exception):
                video.__exit__(type(error), error, error.__traceback__)
        cause = error.message if isinstance(error, PropagateError) else f"{type(error).__name__}: {error}."
        told = f"{self._path.name} was not written; everything else is complete. {printable(cause)}"
        warnings.warn(told, OverlayWarning, stacklevel=3)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._video is not None:
            try:
                self._video.__exit__(kind, error, trace)
            except Exception as failure:
                self._video = None
                self._give_up(failure)


@contextmanager
def overlay_video(path: Path, rate: float, crf: int) -> Iterator[Write]:
    """The result drawn over the video."""
    with ForgivingVideo(path, rate, crf) as video:

        def write(frame: Frame, prediction: Prediction) -> None:
            pixels = frame.pixels
            if prediction.mask is not None:
                pixels = draw_mask(pixels, prediction.mask)
            if prediction.keypoints is not None:
                pixels = draw_keypoints(pixels, prediction.keypoints)
            video.write(pixels, frame.time_s)

        yield write


@contextmanager
def soft_maps(folder: Path) -> Iterator[Write]:
    """An .npz per frame, each called as `picture_name` says, with two arrays.

    soft: (L, h, w) float32, the soft labels on the grid; channels: (L,) text, what each stands for, the background
    first, then the object ids or the names of the joints.
    """
    prepare_output(folder, overwrite=True)

    def write(frame: Frame, prediction: Prediction) -> None:
        assert prediction.soft is not None
        with atomic_path(folder / f"{picture_name(frame)}.npz") as temporary:
            channels = np.array(["background", *map(str, prediction.confidence)])
            np.savez_compressed(temporary, soft=prediction.soft.numpy(), channels=channels)

    yield write


class Outputs:
    """All files of a run, opened when the first frame is in.

    On the way out every file is finished with the frames it has, whatever stopped the run, so that finished frames
    are never lost. Files are discarded only where writing them failed, or on an interruption that must not wait.

    Attributes:
        frames: number of frames that are in all files.
        lost: why files could not be finished on the way out, a sentence each.
    """

    def __init__(self, sinks: Sequence[AbstractContextManager[Write]]) -> None:
        self.frames, self.lost = 0, list[str]()
        self._sinks = sinks
        self._opened: list[tuple[AbstractContextManager[Write], Write]] = []
        self._broken: AbstractContextManager[Write] | None = None

    def __enter__(self) -> Outputs:
        return self

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Add a frame to every file.

        Raises:
            InputError: a file cannot be written.
        """
        if not self._opened:
            for sink in self._sinks:
                self._opened.append((sink, sink.__enter__()))
        for sink, write in self._opened:
            self._broken = sink
            write(frame, prediction)
        self._broken = None
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hurry = error is not None and not isinstance(error, Exception)
        failure: PropagateError | None = None
        for sink, _ in self._opened:
            discard = hurry or sink is self._broken
            try:
                sink.__exit__(*((kind, error, trace) if discard else (None, None, None)))
            except PropagateError as refused:
                self.lost.append(refused.message)
                failure = failure or refused
        if error is None and failure is not None:
            raise failure


def keep_inputs(output: Path, info: FrameInfo, labels: Sequence[Path], *, overlay: bool) -> None:
    """Refuse results that would replace what the run reads.

    The first frame's mask may lie where its own result goes: that is the same mask.

    Args:
        output: folder of the results.
        info: of the video.
        labels: files of masks or keypoints, and pictures that they belong to.
        overlay: one is written.

    Raises:
        UsageError: see `refuse_replacing`.
    """
    first = f"{info.names[0]}.png" if info.names else f"{info.indices[0] if info.indices else 0:05d}.png"
    own = real_path(output) / MASKS / first
    results = [name for name in _RESULTS if overlay or name != "overlay.mp4"]
    read = [Path(info.source), *(label for label in labels if real_path(label) != own)]
    refuse_replacing(output, read, [*results, MASKS, SOFT])


def refuse_replacing(output: Path, read: Iterable[Path], written: Iterable[str]) -> None:
    """Refuse results that would replace what is read.

    Args:
        output: folder of the results.
        read: files and folders.
        written: names of files in the output folder, and of folders for what is in them.

    Raises:
        UsageError: names the first one.
    """
    places = {real_path(output / name) for name in written}
    for path in read:
        if places & {real_path(path), *real_path(path).parents}:
            raise UsageError(
                f"The results in {output} would replace {path}, which is read.", "Choose another --output."
            )


@contextmanager
def output_folder(folder: Path, terminal: Terminal, *, overwrite: bool) -> Iterator[Path]:
    """The folder to write into, held for this run; where the block fails, new and empty folders are removed again.

    Raises:
        UsageError: it is not empty, and `overwrite` is false.
        InputError: it cannot be written, a folder has the name of a result, or another run writes into it.
    """
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    subfolders = [folder / MASKS, folder / SOFT]
    new = [subfolder for subfolder in subfolders if not subfolder.exists()] + new
    try:
        with held_output(folder, overwrite=overwrite) as notes:
            terminal.notes(notes)
            if taken := [folder / name for name in _RESULTS if (folder / name).is_dir()]:
                raise InputError(f"{taken[0]} is a folder, where a file is written.", "Choose another --output.")
            yield folder
    except BaseException:
        for path in new:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """What tells whether a result of this folder was replaced: (inode, time of change) of each file."""
    places = [*folder.glob("*"), *folder.glob(f"{MASKS}/*.png"), *folder.glob(f"{SOFT}/*.npz")]
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in places if path.is_file() and path.name != LOCK
    }
