"""Which pictures of a folder are frames, in which order, and what their names tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from propagate.errors import InputError
from propagate.files.documents import check_regular_file
from propagate.files.pictures import inspect_picture
from propagate.video.picture_names import natural_key, numbering_notes, uses_decimals

TILED_SUFFIXES = (".avif", ".heic", ".heif")  # of a single file, its content tells a still from a sequence
PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
SUFFIXES = (*PLAIN_SUFFIXES, *TILED_SUFFIXES)

_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_MASK_WORD = re.compile(r"(?<![a-z])(masks?|masque|labels?|segmentation|annotation|matte)(?![a-z])", re.IGNORECASE)
_MASK_MODES = ("1", "P", "L")


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder in order, and sentences for the user about what was left out and how they are named."""

    pictures: tuple[Path, ...]
    notes: tuple[str, ...]


def list_pictures(folder: Path, leave_out: Sequence[Path] = ()) -> Listing:
    """Find the frames in a folder of pictures.

    Args:
        folder: that holds them; hidden files are passed over, and folders in it are left out.
        leave_out: files that are something else, such as the mask of the first frame, if they lie in the folder.

    Raises:
        InputError: no picture at all, a link to nothing, a pipe or device, or two pictures for one frame.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as problem:
        raise InputError(f"{folder} cannot be read: {problem.strerror}.", "Check its permissions.") from problem
    named, others = [], []
    for entry in entries:
        if entry.suffix.lower() in SUFFIXES:
            if entry.is_dir():
                others.append(entry.name)
                continue
            _check_entry(entry)
            named.append(entry)
        elif entry.name.lower() not in _SYSTEM_FILES:
            others.append(entry.name)
    notes = []
    given = [entry for entry in named if any(_is_same(entry, path) for path in leave_out)]
    pictures = [entry for entry in named if entry not in given]
    if given:
        notes.append(f"Left out of the frames, since the command names it: {_some(entry.name for entry in given)}.")
    masks = _masks_among(pictures)
    pictures = [entry for entry in pictures if entry not in masks]
    if masks:
        notes.append(
            f"Left out of the frames, being masks by name and kind of picture: {_some(entry.name for entry in masks)}."
        )
    if not pictures:
        found = f"only {_some(others)}" if others else "nothing"
        raise InputError(
            f"{folder} holds no pictures, {found}.", f"Give a video file or a folder of {', '.join(SUFFIXES)}."
        )
    _check_one_per_name(folder, pictures)
    decimals = uses_decimals([picture.stem for picture in pictures])
    pictures.sort(key=lambda picture: natural_key(picture.stem, decimals=decimals))
    if others:
        notes.append(f"Left out, being no pictures: {_some(others)}.")
    notes += numbering_notes([picture.stem for picture in pictures], decimals=decimals)
    return Listing(tuple(pictures), tuple(notes))


def _check_entry(entry: Path) -> None:
    if entry.is_symlink() and not entry.exists():
        raise InputError(
            f"{entry} is a link to {entry.readlink()}, which does not exist.",
            "Restore the picture that it points to, or remove the link.",
        )
    check_regular_file(entry, "picture")


def _is_same(entry: Path, path: Path) -> bool:
    try:
        return entry.samefile(path)
    except (OSError, ValueError):  # not there: whoever reads it says so
        return False


def _masks_among(pictures: Sequence[Path]) -> list[Path]:
    """The pictures that are called masks among others that are not, and are of another kind than those."""
    called = [picture for picture in pictures if _MASK_WORD.search(picture.stem)]
    rest = [picture for picture in pictures if picture not in called]
    if not called or not rest:
        return []
    kinds = {(picture.suffix.lower() in (".jpg", ".jpeg"), inspect_picture(picture).mode) for picture in rest}
    return [
        picture
        for picture in called
        if (kind := (picture.suffix.lower() in (".jpg", ".jpeg"), inspect_picture(picture).mode))[1] in _MASK_MODES
        and kind not in kinds
    ]


def _check_one_per_name(folder: Path, pictures: Sequence[Path]) -> None:
    by_stem: dict[str, list[str]] = defaultdict(list)
    for picture in sorted(pictures):
        by_stem[picture.stem].append(picture.name)
    for names in by_stem.values():
        if len(names) > 1:
            raise InputError(
                f"{folder} has both {names[0]} and {names[1]}: it is not clear which is the frame.",
                "Keep frames and masks in folders of their own.",
            )


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
