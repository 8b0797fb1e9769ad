"""The inputs of a run: the video and the first frame's label, or references. Their notes are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from propagate.app.terminal.console import Terminal
from propagate.errors import InputError, UsageError
from propagate.features import FeatureExtractor
from propagate.formats import read_keypoints_file, read_mask_file
from propagate.references.label_from_references import FoundLabel, Reference, label_from_references
from propagate.settings import Settings
from propagate.types import Label, Mask
from propagate.video import VideoReader, open_video


@dataclass(frozen=True)
class LabelFile:
    """A label and its file; notes and colors as in `MaskFile`."""

    path: Path
    label: Label
    notes: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """The entry of run.json."""
        label = self.label
        names = {"objects": label.objects} if isinstance(label, Mask) else {"joints": label.names}
        return {"path": str(self.path.absolute()), **names, "notes": self.notes}


def open_input(video: Path, settings: Settings, terminal: Terminal, *, leave_out: Sequence[Path] = ()) -> VideoReader:
    """Open the video with the settings' reader and range; skip files such as the mask (`leave_out`)."""
    if settings.max_memory is not None and settings.video.reader == "decord":
        raise UsageError(
            "--reader decord decodes ahead, and --max-memory cannot limit its memory.", "Use --reader auto or pyav."
        )
    reader = open_video(video, **settings.video.reading, leave_out=leave_out)
    terminal.notes(reader.info.notes)
    return reader


def read_mask(
    path: Path, size: tuple[int, int], terminal: Terminal, *, resize: bool = False, harden: bool = False
) -> LabelFile:
    """Read a mask and print its notes; see `read_mask_file`."""
    file = read_mask_file(path, frame_size=size, resize=resize, harden=harden)
    terminal.notes(file.notes)
    return LabelFile(path, file.mask, file.notes, file.colors)


def read_keypoints(
    path: Path,
    size: tuple[int, int],
    terminal: Terminal,
    *,
    frame: int | None = None,
    instance: str | None = None,
    picture: str | None = None,
    alone: bool = False,
) -> LabelFile:
    """Read keypoints and print their notes; see `read_keypoints_file`."""
    file = read_keypoints_file(path, frame_size=size, frame=frame, instance=instance, picture=picture, alone=alone)
    terminal.notes(file.notes)
    return LabelFile(path, file.keypoints, file.notes)


@dataclass(frozen=True, eq=False)
class ReferenceFile:
    """A reference picture, its pixels and its label."""

    path: Path
    pixels: UInt8[ndarray, "h w 3"]
    label: LabelFile


def read_references(
    pictures: Sequence[Path],
    labels: Sequence[Path],
    terminal: Terminal,
    *,
    masks: bool,
    resize: bool = False,
    harden: bool = False,
) -> list[ReferenceFile]:
    """Read the values of `--reference` and, in the same order, of `--mask` or `--keypoints`; print their notes."""
    option = "--mask" if masks else "--keypoints"
    if len(pictures) != len(labels):
        raise UsageError(
            f"--reference was given {len(pictures)} times and {option} {len(labels)} times.",
            f"Give each reference a {option} of its own, in the same order.",
        )
    files = []
    for path, label_path in zip(pictures, labels, strict=True):
        pixels, notes = read_one_picture(path, "The reference")
        terminal.notes(notes)
        size = (pixels.shape[0], pixels.shape[1])
        try:
            if masks:
                label = read_mask(label_path, size, terminal, resize=resize, harden=harden)
            else:
                label = read_keypoints(label_path, size, terminal)
        except InputError as error:
            raise InputError(f"Of the reference {path}: {error.message}", error.remedy) from error
        files.append(ReferenceFile(path, pixels, replace(label, notes=(*notes, *label.notes))))
    several = any(len(file.label.colors) > 1 for file in files)  # one color each: all show one object
    for number, colors in enumerate(zip_longest(*(file.label.colors for file in files)), start=1):
        if several and len(found := [color for color in dict.fromkeys(colors) if color]) > 1:
            raise InputError(
                f"Object {number} is {found[0]} in the mask of one reference and {found[1]} in another's: objects are "
                "numbered by the order in which their colors appear.",
                "Save the masks with a palette, one index for each object.",
            )
    return files


def only_label(labels: Sequence[Path], option: str) -> Path:
    """Return the one label of the first frame, or raise a UsageError."""
    if len(labels) > 1:
        raise UsageError(
            f"{option} was given {len(labels)} times.",
            "Put all of the first frame into one file; several files need as many --reference.",
        )
    return labels[0]


def find_label(
    references: Sequence[ReferenceFile],
    reader: VideoReader,
    extractor: FeatureExtractor,
    settings: Settings,
    terminal: Terminal,
) -> tuple[FoundLabel, dict[str, Any]]:
    """Find the first frame's label with the references; return it with its entry of run.json."""
    frame = next(iter(reader), None)
    if frame is None:
        raise InputError("The video has no frames.", "Check --from-frame, --to-frame and the file.")
    with terminal.status("Searching the first frame for the references"):
        given = [Reference(file.pixels, file.label.label) for file in references]
        found = label_from_references(frame, given, extractor, settings)
    terminal.notes(found.notes)
    return found, {
        "references": [{"picture": str(file.path.absolute()), **file.label.record} for file in references],
        "found": {str(name): {**asdict(known), "weak": known.weak} for name, known in found.evidence.items()},
        "confidence": {str(name): value for name, value in found.confidence.items()},
        "notes": found.notes,
    }


def read_one_picture(path: Path, title: str) -> tuple[UInt8[ndarray, "h w 3"], tuple[str, ...]]:
    """Return the pixels of a single picture, and notes; `title` begins error messages ("The reference")."""
    if path.is_dir():
        raise InputError(f"{title} {path} is a folder, not a picture.", "Name one picture (jpg, png, webp, tif, bmp).")
    reader = open_video(path)
    if reader.info.reader != "folder":
        raise InputError(f"{title} {path} is a video, not a picture.", "Save one of its frames as a picture.")
    notes = tuple(note for note in reader.info.notes if not note.startswith("A single picture"))
    return next(iter(reader)).pixels, notes
