"""The pictures of a folder that are frames, in the order of the numbers in their names, and notes about them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from propagate.errors import InputError
from propagate.files.documents import check_regular_file
from propagate.files.pictures import inspect_picture

PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
SUFFIXES = (*PLAIN_SUFFIXES, ".avif", ".heic", ".heif")  # of a single one of these, the content tells if it moves

Key = tuple[list[tuple[int, Fraction, str]], str]

# The last number of a name with its fraction: 1.04 in frame_1.04_left. Not the end of a date or a version, 1.2.10.
_DECIMAL = re.compile(r"(?<![\d.,])(\d+)[.,](\d+)(?=\D*$)")
# Names that may be meant in another order than by numbers from left to right: 31.12.2024, 9e1.
_OTHERWISE = re.compile(r"(?<!\d)\d{1,2}([._-])\d{1,2}\1(19|20)\d\d(?!\d)|^-?\d+([.,]\d+)?[eE][+-]?\d+$")
_SIGNED = re.compile(r"-\d+([.,]\d+)?")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_MASK_WORD = re.compile(r"(?<![a-z])(masks?|masque|labels?|segmentation|annotation|matte)(?![a-z])", re.IGNORECASE)


def list_pictures(folder: Path, leave_out: Sequence[Path] = ()) -> tuple[list[Path], list[str]]:
    """Return the frames in a folder of pictures, in order, and notes about skipped files and about the names.

    Skip hidden files, subfolders and `leave_out`, such as the mask of the first frame. InputError for no picture, a
    broken link, a pipe or device, or two pictures for one frame.
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
    pictures = [entry for entry in files if entry not in named]
    masks = _masks_among(pictures)
    for cause, skipped in (("the command names them", named), ("they look like masks by name and format", masks)):
        if skipped:
            notes.append(f"Not read as frames, because {cause}: {_some(sorted(entry.name for entry in skipped))}.")
    pictures = [entry for entry in pictures if entry not in masks]
    if not pictures:
        found = f"only {_some(sorted(others))}" if others else "nothing"
        raise InputError(
            f"{folder} contains no pictures, {found}.", f"Give a video file or a folder of {', '.join(SUFFIXES)}."
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
        notes.append(f"Not read, because they are not pictures: {_some(sorted(others))}.")
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


def _some(items: Sequence[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def natural_key(stem: str, *, decimals: bool = False) -> Key:
    """Return the key that sorts frame_2 before frame_10: digits compare as numbers, the rest as text without case.

    With `decimals`, the last number may have a fraction: 1.04 comes before 1.2.
    """
    last = (_SIGNED.fullmatch(stem) or _DECIMAL.search(stem)) if decimals else None
    if last is None:
        return _parts(stem), stem
    value = Fraction(last[0].replace(",", "."))
    return [*_parts(stem[: last.start()]), (1, value, ""), *_parts(stem[last.end() :])], stem


def uses_decimals(stems: Sequence[str]) -> bool:
    """Return whether the names count in decimal numbers, such as seconds: 1.0, 1.04, 1.2.

    Digits after the point may be a counter of their own instead: 1.1 to 1.12, or two names of one value.
    """
    if any(_SIGNED.fullmatch(stem) for stem in stems):
        return True
    fractions: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        if found := _DECIMAL.search(stem):
            fractions[stem[: found.start(2)]].append(found[2])
    return bool(fractions) and not any(map(_are_counters, fractions.values()))


def numbering_notes(stems: Sequence[str], *, decimals: bool) -> list[str]:
    """Return sentences for the user about names without suffix, in order."""
    notes = []
    if decimals and list(stems) != sorted(stems, key=natural_key):
        notes.append(f"Names are decimal numbers and ordered by value: {stems[0]} to {stems[-1]}.")
    if len(stems) > 1 and any(_OTHERWISE.search(stem) for stem in stems):
        order = "ordered by their numbers from left to right"
        notes.append(f"Names look like dates or powers of ten, and are {order}: {_some(stems, 6)}.")
    if decimals or len(stems) < 2:
        return notes
    numbers = _counted(stems)
    if numbers is None:
        return notes + _spelling_notes(stems)
    if numbers[0]:
        notes.append(f"Names start at {numbers[0]} and frames are counted from 0: frame 0 is {stems[0]}.")
    steps = {after - before for before, after in pairwise(numbers)}
    if 0 in steps:
        notes.append("Some numbers occur twice in the names, with and without zeros before them.")
    if len(steps) == 1 and min(steps) > 1 and len(stems) > 2:
        notes.append(f"Names count in steps of {steps.pop()}; frames are counted one by one.")
    else:
        notes += _gap_notes(list(pairwise(numbers)))
    return notes


def _spelling_notes(stems: Sequence[str]) -> list[str]:
    spellings = {_spelling(stem) for stem in stems}
    if len(spellings) == 1:
        pairs = [(_numbers(before), _numbers(after)) for before, after in pairwise(stems)]
        # of dates and the like: gaps within the last number
        notes = _gap_notes([(a[-1], b[-1]) for a, b in pairs if a[:-1] == b[:-1]])
        if anew := [stem for stem, (a, b) in zip(stems[1:], pairs, strict=True) if b[-1] < a[-1]]:
            notes.append(f"The last number in the names starts again at {_some(anew, 6)}: all are taken for one video.")
        return notes
    if odd := _odd_ones(stems):
        listed = _some([f"{stems[n]} (frame {n})" for n in odd])
        return [f"Named differently from the others, but read as frames: {listed}."]
    if not any(map(_numbers, stems)):
        return [f"Names have no numbers, and are in alphabetical order: {_some(stems, 6)}."]
    return [f"Names are spelled differently, so their order is a guess: {_some(stems, 6)}."]


def _gap_notes(pairs: Sequence[tuple[int, int]]) -> list[str]:
    gaps = [(a + 1, b - 1) for a, b in pairs if b - a > 1]
    if not gaps:
        return []
    missing = sum(b - a + 1 for a, b in gaps)
    listed = _some([str(a) if a == b else f"{a} to {b}" for a, b in gaps], 5)
    return [
        f"The numbers of the names have gaps, {missing} missing: {listed}. Frames on both sides of a gap are taken to "
        "follow each other."
    ]


def _counted(stems: Sequence[str]) -> list[int] | None:
    """Return the number of each name if exactly one number differs between the names."""
    split = [re.split(r"(\d+)", stem) for stem in stems]
    if any(len(parts) != len(split[0]) or parts[::2] != split[0][::2] for parts in split):
        return None
    varying = [place for place in range(1, len(split[0]), 2) if len({parts[place] for parts in split}) > 1]
    return [int(parts[varying[0]]) for parts in split] if len(varying) == 1 else None


def _odd_ones(stems: Sequence[str]) -> list[int]:
    """Return the places of the few names that differ in more than digits from all others."""
    spellings = list(map(_spelling, stems))
    most = Counter(spellings).most_common(1)[0][0]
    few = [place for place, spelling in enumerate(spellings) if spelling != most]
    return few if len(few) * 4 <= len(stems) else []


def _spelling(stem: str) -> str:
    return re.sub(r"\d+", "0", stem)


def _numbers(stem: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", stem)]


def _parts(text: str) -> list[tuple[int, Fraction, str]]:
    # NFKC: one spelling for letters that look alike, and for superscript or wide digits
    parts = re.split(r"(\d+)", unicodedata.normalize("NFKC", text))
    return [(1, Fraction(int(p)), "") if p.isdecimal() else (0, Fraction(), p.casefold()) for p in parts]


def _are_counters(digits: Sequence[str]) -> bool:
    """Return whether the digits after the point count one by one: without leading zeros, or two of one value."""
    if len({text.rstrip("0") for text in digits}) < len(digits):
        return True
    padded = any(len(text) > 1 and text.startswith("0") for text in digits)
    numbers = sorted(int(text) for text in digits)
    lengths = {len(text) for text in digits}
    return not padded and len(lengths) > 1 and len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
