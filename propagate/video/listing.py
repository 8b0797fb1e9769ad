"""Which pictures of a folder are frames, and in which order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from propagate.errors import InputError
from propagate.files.documents import check_regular_file
from propagate.files.pictures import inspect_picture
from propagate.video.picture_names import natural_key, numbering_notes, uses_decimals

PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
SUFFIXES = (*PLAIN_SUFFIXES, ".avif", ".heic", ".heif")  # of a single one of these, the content tells if it moves

_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_MASK_WORD = re.compile(r"(?<![a-z])(masks?|masque|labels?|segmentation|annotation|matte)(?![a-z])", re.IGNORECASE)


def list_pictures(folder: Path, leave_out: Sequence[Path] = ()) -> tuple[list[Path], list[str]]:
    """Return the frames in a folder of pictures, in order, and notes about skipped files and about the names.

    Args:
        folder: the folder; hidden files and subfolders are skipped.
        leave_out: files to skip if they lie in the folder, such as the mask of the first frame.

    Raises:
        InputError: no picture, a broken link, a pipe or device, or two pictures for one frame.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as problem:
        raise InputError(f"{folder} cannot be read: {problem.strerror}.", "Check its permissions.") from problem
    files, others = [], []
    for entry in entries:
        if entry.suffix.lower() not in SUFFIXES or entry.is_dir():
            others += [entry.name] if entry.name.lower() not in _SYSTEM_FILES else []
            continue
        if entry.is_symlink() and not entry.exists():
            raise InputError(
                f"{entry} is a link to {entry.readlink()}, which does not exist.",
                "Restore the picture that it points to, or remove the link.",
            )
        check_regular_file(entry, "picture")
        files.append(entry)
    notes = []
    named = [entry for entry in files if any(_is_same(entry, path) for path in leave_out)]
    if named:
        notes.append(f"Left out of the frames, since the command names it: {_some(entry.name for entry in named)}.")
    pictures = [entry for entry in files if entry not in named]
    if masks := _masks_among(pictures):
        notes.append(
            f"Left out of the frames, being masks by name and kind of picture: {_some(entry.name for entry in masks)}."
        )
    pictures = [entry for entry in pictures if entry not in masks]
    if not pictures:
        found = f"only {_some(others)}" if others else "nothing"
        raise InputError(
            f"{folder} holds no pictures, {found}.", f"Give a video file or a folder of {', '.join(SUFFIXES)}."
        )
    by_stem: dict[str, list[str]] = defaultdict(list)
    for picture in sorted(pictures):
        by_stem[picture.stem].append(picture.name)
    if names := next((names for names in by_stem.values() if len(names) > 1), None):
        raise InputError(
            f"{folder} has both {names[0]} and {names[1]}: it is not clear which is the frame.",
            "Keep frames and masks in folders of their own.",
        )
    decimals = uses_decimals([picture.stem for picture in pictures])
    pictures.sort(key=lambda picture: natural_key(picture.stem, decimals=decimals))
    if others:
        notes.append(f"Left out, being no pictures: {_some(others)}.")
    return pictures, notes + numbering_notes([picture.stem for picture in pictures], decimals=decimals)


def _is_same(entry: Path, path: Path) -> bool:
    with suppress(OSError, ValueError):  # missing: its own reader reports it
        return entry.samefile(path)
    return False


def _masks_among(pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures with a mask's name among others without, and of another kind than those."""
    candidates = [picture for picture in pictures if _MASK_WORD.search(picture.stem)]
    rest = [picture for picture in pictures if picture not in candidates]
    if not candidates or not rest:
        return []
    frame_kinds = set(map(_kind, rest))
    kinds = {picture: _kind(picture) for picture in candidates}
    return [picture for picture, kind in kinds.items() if kind[1] in ("1", "P", "L") and kind not in frame_kinds]


def _kind(picture: Path) -> tuple[bool, str]:
    return picture.suffix.lower() in (".jpg", ".jpeg"), inspect_picture(picture).mode


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
