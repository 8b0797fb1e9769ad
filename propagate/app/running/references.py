"""The label of the first frame from other pictures: `--reference PICTURE` beside each `--mask` or `--keypoints`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from propagate.references.labels import FoundLabel, Reference, label_from_references
from propagate.settings import Settings
from propagate.types import Label, Mask, Prediction
from propagate.video import VideoReader, open_video


@dataclass(frozen=True, eq=False)
class ReferenceFile:
    """A reference, where it and its label were read from, and how the files were understood (see `MaskFile`)."""

    path: Path
    label_path: Path
    reference: Reference
    notes: tuple[str, ...]
    colors: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """For run.json."""
        label = self.reference.label
        held = {"objects": label.objects} if isinstance(label, Mask) else {"joints": label.names}
        return {
            "picture": str(self.path.absolute()),
            "path": str(self.label_path.absolute()),
            **held,
            "notes": self.notes,
        }


def read_references(
    pictures: Sequence[Path],
    labels: Sequence[Path],
    terminal: Terminal,
    *,
    masks: bool,
    resize: bool = False,
    harden: bool = False,
) -> list[ReferenceFile]:
    """The references and their labels, their notes shown.

    Args:
        pictures: of `--reference`, in order.
        labels: of `--mask` or `--keypoints`, as many and in the same order.
        terminal: where to print.
        masks: the labels are masks, not keypoints.
        resize: bring a mask to its picture's size.
        harden: cut a mask's soft edges.

    Raises:
        UsageError: not as many labels as pictures.
        InputError: a file that cannot be read, no single picture, a label that does not fit its picture, or masks in
            which one object has several colors.
    """
    option = "--mask" if masks else "--keypoints"
    if len(pictures) != len(labels):
        raise UsageError(
            f"--reference was given {len(pictures)} times and {option} {len(labels)} times.",
            f"Each reference has a {option} of its own, in the same order.",
        )
    files = [
        _read(picture, label, terminal, masks, resize, harden) for picture, label in zip(pictures, labels, strict=True)
    ]
    several = any(len(file.colors) > 1 for file in files)  # of one color each, all show one object
    for number, colors in enumerate(zip_longest(*(file.colors for file in files)), start=1):
        if several and len(found := [color for color in dict.fromkeys(colors) if color]) > 1:
            raise InputError(
                f"Object {number} is {found[0]} in the mask of one reference and {found[1]} in another's: objects are "
                "numbered by the order in which their colors appear.",
                "Save the masks with a palette, one index for each object.",
            )
    return files


def only_label(labels: Sequence[Path], option: str) -> Path:
    """The label of the first frame itself, where there is no reference.

    Raises:
        UsageError: there are several.
    """
    if len(labels) > 1:
        raise UsageError(
            f"{option} was given {len(labels)} times.",
            "One file holds all of the first frame; several go with as many --reference.",
        )
    return labels[0]


def find_label(
    references: Sequence[ReferenceFile],
    reader: VideoReader,
    extractor: FeatureExtractor,
    settings: Settings,
    terminal: Terminal,
) -> FoundLabel:
    """The first frame's label from the references; what it rests on is shown.

    Raises:
        PropagateError: see `label_from_references`.
    """
    frame = next(iter(reader), None)
    if frame is None:
        raise InputError("The video has no frames.", "Check --from-frame, --to-frame and the file.")
    with terminal.status("Looking for the references in the first frame"):
        found = label_from_references(frame, [file.reference for file in references], extractor, settings)
    terminal.notes(found.notes)
    return found


def references_record(references: Sequence[ReferenceFile], found: FoundLabel) -> dict[str, Any]:
    """For run.json: the references, and what the label that was found rests on."""
    evidence = {str(name): {**asdict(known), "weak": known.weak} for name, known in found.evidence.items()}
    return {
        "references": [file.record for file in references],
        "found": evidence,
        "confidence": {str(name): value for name, value in found.confidence.items()},
        "notes": found.notes,
    }


def with_confidence(
    predictions: Iterator[Prediction], confidence: Mapping[int, float] | Mapping[str, float] | None
) -> Iterator[Prediction]:
    """Predictions whose first, which is the label itself, has the confidence with which the label was found."""
    for number, prediction in enumerate(predictions):
        yield replace(prediction, confidence=confidence) if number == 0 and confidence is not None else prediction


def read_one_picture(path: Path, what: str) -> tuple[UInt8[ndarray, "h w 3"], tuple[str, ...]]:
    """The pixels of a single picture, and notes.

    Args:
        path: of the file.
        what: it is, for messages.

    Raises:
        InputError: a folder, a film or nothing that can be read.
    """
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder, not a picture.", "Name one picture (jpg, png, webp, tif, bmp).")
    reader = open_video(path)
    if reader.info.reader != "folder":
        raise InputError(f"{what} {path} is a video, not a picture.", "Save one of its frames as a picture.")
    notes = tuple(note for note in reader.info.notes if not note.startswith("A single picture"))
    return next(iter(reader)).pixels, notes


def _read(path: Path, label_path: Path, terminal: Terminal, masks: bool, resize: bool, harden: bool) -> ReferenceFile:
    pixels, notes = read_one_picture(path, "The reference")
    size = (pixels.shape[0], pixels.shape[1])
    label: Label
    colors: tuple[str, ...] = ()
    try:
        if masks:
            mask_file = read_mask_file(label_path, frame_size=size, resize=resize, harden=harden)
            label, told, colors = mask_file.mask, mask_file.notes, mask_file.colors
        else:
            keypoints_file = read_keypoints_file(label_path, frame_size=size)
            label, told = keypoints_file.keypoints, keypoints_file.notes
    except InputError as error:
        raise InputError(f"Of the reference {path}: {error.message}", error.remedy) from error
    terminal.notes((*notes, *told))
    return ReferenceFile(path, label_path, Reference(pixels, label), (*notes, *told), colors)
