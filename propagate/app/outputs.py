"""What a run writes, frame by frame: each kind of file is a context manager that gives a function to call."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from propagate.app.console import Terminal
from propagate.errors import PropagateError
from propagate.formats import (
    KeypointsWriter,
    VideoWriter,
    atomic_path,
    draw_keypoints,
    draw_mask,
    held_output,
    prepare_output,
    write_mask,
)
from propagate.formats.lock import LOCK
from propagate.formats.output_folder import MASKS, SOFT
from propagate.types import Frame, Prediction

Write = Callable[[Frame, Prediction], None]


@contextmanager
def mask_pictures(folder: Path) -> Iterator[Write]:
    """`00000.png` and so on, numbered by frame: indexed PNG."""
    prepare_output(folder, overwrite=True)

    def write(frame: Frame, prediction: Prediction) -> None:
        assert prediction.mask is not None
        write_mask(folder / f"{frame.index:05d}.png", prediction.mask)

    yield write


@contextmanager
def confidence_table(path: Path) -> Iterator[Write]:
    """CSV with the columns frame, object, confidence."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["frame", "object", "confidence"])

        def write(frame: Frame, prediction: Prediction) -> None:
            rows.writerows([frame.index, name, f"{value:.4f}"] for name, value in prediction.confidence.items())

        yield write


@contextmanager
def keypoints_file(path: Path, frame_size: tuple[int, int]) -> Iterator[Write]:
    """The keypoints of all frames, as JSON or CSV by the suffix."""
    with KeypointsWriter(path, frame_size=frame_size) as writer:
        yield lambda _frame, prediction: writer.write(prediction)


@contextmanager
def overlay_video(path: Path, rate: float, crf: int) -> Iterator[Write]:
    """The result drawn over the video."""
    with VideoWriter(path, rate, crf=crf) as video:

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
    """`00000.npz` and so on, with two arrays.

    soft: (L, h, w) float32, the soft labels on the grid; channels: (L,) text, what each stands for, the background
    first, then the object ids or the names of the joints.
    """
    prepare_output(folder, overwrite=True)

    def write(frame: Frame, prediction: Prediction) -> None:
        assert prediction.soft is not None
        with atomic_path(folder / f"{frame.index:05d}.npz") as temporary:
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


@contextmanager
def output_folder(folder: Path, terminal: Terminal, *, overwrite: bool) -> Iterator[Path]:
    """The folder to write into, held for this run; where the block fails, new and empty folders are removed again.

    Raises:
        UsageError: it is not empty, and `overwrite` is false.
        InputError: it cannot be written, or another run writes into it.
    """
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    subfolders = [folder / MASKS, folder / SOFT]
    new = [subfolder for subfolder in subfolders if not subfolder.exists()] + new
    try:
        with held_output(folder, overwrite=overwrite) as notes:
            terminal.notes(notes)
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
