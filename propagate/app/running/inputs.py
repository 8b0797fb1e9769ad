"""What a run reads: the video and the first frame's label, with their notes shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from propagate.app.terminal.console import Terminal
from propagate.errors import UsageError
from propagate.formats import read_keypoints_file, read_mask_file
from propagate.settings import Settings
from propagate.types import FrameInfo, Label
from propagate.video import VideoReader, open_video


@dataclass(frozen=True)
class LabelFile:
    """A label, where it was read from, and how the file was understood."""

    path: Path
    label: Label
    notes: tuple[str, ...] = ()


def open_input(video: Path, settings: Settings, terminal: Terminal, *, leave_out: Sequence[Path] = ()) -> VideoReader:
    """The video as its settings ask for it, its notes shown.

    Args:
        video: file or folder.
        settings: of the run.
        terminal: where the notes are shown.
        leave_out: files of the command, such as its mask, that are no frames if they lie in the folder.

    Raises:
        InputError, UsageError: see `open_video`.
    """
    options = settings.video
    if settings.max_memory is not None and options.reader == "decord":
        raise UsageError(
            "--reader decord decodes ahead, and what it takes cannot be limited by --max-memory.",
            "Use --reader auto or pyav.",
        )
    reader = open_video(
        video,
        **options.reading,
        leave_out=leave_out,
    )
    terminal.notes(reader.info.notes)
    return reader


def read_first_mask(
    path: Path, info: FrameInfo, terminal: Terminal, *, resize: bool, harden: bool = False
) -> LabelFile:
    """The mask of the first frame, its notes shown.

    Raises:
        InputError: see `read_mask_file`.
    """
    file = read_mask_file(path, frame_size=(info.height, info.width), resize=resize, harden=harden)
    terminal.notes(file.notes)
    return LabelFile(path, file.mask, file.notes)


def read_first_keypoints(
    path: Path,
    info: FrameInfo,
    terminal: Terminal,
    *,
    frame: int,
    chosen: bool = False,
    alone: bool = False,
    instance: str | None = None,
) -> LabelFile:
    """Read the keypoints of the first frame that is read, and show its notes.

    Args:
        path: the file.
        info: the video.
        terminal: where to print.
        frame: number in the file.
        chosen: the user has named that number: the name of the first picture does not matter.
        alone: the user has not named the frame: a file that holds others as well is refused.
        instance: which of several instances.

    Raises:
        InputError: see `read_keypoints_file`.
    """
    size = (info.height, info.width)
    picture = info.names[0] if info.names and not chosen else None
    file = read_keypoints_file(path, frame_size=size, frame=frame, instance=instance, picture=picture, alone=alone)
    terminal.notes(file.notes)
    return LabelFile(path, file.keypoints, file.notes)
