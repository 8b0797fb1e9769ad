"""The files of DAVIS 2016 and 2017: which sequences there are, and whether all of their pieces are.

JPEGImages/480p/SEQUENCE/00000.jpg      frames
Annotations/480p/SEQUENCE/00000.png     truth; a frame and its mask have the same number
ImageSets/2017/val.txt                  2017: one name per line
ImageSets/480p/val.txt                  2016: two paths per line, of a frame and of its mask
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from propagate.benchmarks.benchmark import Clip
from propagate.errors import InputError, UsageError
from propagate.files.documents import read_text
from propagate.files.names import is_plain_name
from propagate.files.pictures import inspect_picture
from propagate.formats import read_indexed_png
from propagate.types import BACKGROUND, VOID, Mask
from propagate.video.folder import read_header

Year = Literal[2016, 2017]

ALL = "all"
"""The split that is whatever lies in the tree, with or without lists."""

FEWEST_FRAMES = 3  # the first and the last are not scored
FOLDERS = ("JPEGImages", "Annotations")
"""What the folder of DAVIS holds."""

_SHOWN = 8  # pieces of a message before it only counts them


@dataclass(frozen=True)
class AnnotatedClip:
    """A clip and its truth.

    Attributes:
        clip: name and frames.
        masks: one for each frame, in order.
        objects: how many are scored: the highest id of the first mask.
    """

    clip: Clip
    masks: tuple[Path, ...]
    objects: int


@dataclass(frozen=True)
class Tree:
    """A folder in DAVIS layout.

    Attributes:
        root: holds `JPEGImages` and `Annotations`.
        year: how lists and masks are read: 2016 has one object in black and white, 2017 has object ids.
        resolution: name of the folder of one size ("480p", "Full-Resolution").
    """

    root: Path
    year: Year
    resolution: str

    @property
    def frames(self) -> Path:
        """The folder of the sequences' frames."""
        return self.root / "JPEGImages" / self.resolution

    @property
    def annotations(self) -> Path:
        """The folder of the sequences' masks."""
        return self.root / "Annotations" / self.resolution

    def names(self) -> tuple[str, ...]:
        """The sequences that have a folder of masks, sorted.

        Raises:
            InputError: the root or one of the two folders of this resolution does not exist.
            UsageError: the resolution is no name of a folder.
        """
        if not is_plain_name(self.resolution):
            raise UsageError(f"--resolution {self.resolution}: not the name of a folder.", "Give 480p, for example.")
        if not self.root.is_dir():
            raise InputError(f"The folder {self.root} does not exist.", "Give the folder of DAVIS with --data.")
        missing = [folder for folder in (self.frames, self.annotations) if not folder.is_dir()]
        if missing:
            raise InputError(
                f"{self.root} is no DAVIS tree: {_listed([f'the folder {f} is missing' for f in missing])}.",
                self._other_place(),
            )
        return tuple(sorted(f.name for f in self.annotations.iterdir() if f.is_dir() and not f.name.startswith(".")))

    def split(self, split: str) -> tuple[str, ...] | None:
        """The names of a split in the order of its list; None where there is no list of it.

        Raises:
            InputError: the list cannot be read or is empty.
            UsageError: this is no name of a list.
        """
        if not is_plain_name(split):
            raise UsageError(f"--split {split}: not the name of a list.", f"Give val, train or {ALL}.")
        if split == ALL:
            return self.names()
        path = next((path for path in self.lists(split) if path.is_file()), None)
        if path is None:
            return None
        lines = read_text(path, "list").split("\n")
        # Of two paths per line, the frame's folder is the sequence.
        entries = [Path(line.split()[0]) for line in lines if line.strip()]
        names = tuple(dict.fromkeys(e.parent.name if len(e.parts) > 1 else e.name for e in entries))
        if not names:
            raise InputError(f"The list {path} is empty.", "Replace it.")
        return names

    def lists(self, split: str) -> tuple[Path, ...]:
        """Where the list of a split may lie, the usual place first."""
        folders = ("2017",) if self.year == 2017 else dict.fromkeys((self.resolution, "480p", "2016"))
        return tuple(self.root / "ImageSets" / folder / f"{split}.txt" for folder in folders)

    def choose(self, split: str, wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """The names to use, and those of the split's list (None where there is none, which `wanted` makes up for).

        Raises:
            InputError: the list is missing, unreadable or empty.
            UsageError: a wanted sequence is not in the tree.
        """
        present, listed = self.names(), self.split(split)
        for name in wanted:
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                raise UsageError(
                    f"--sequence {name}: {self.annotations} has no such sequence.",
                    f"Did you mean {near[0]}?" if near else f"There are: {_listed(present, ', ')}.",
                )
        if wrong := next((name for name in (*(listed or ()), *wanted) if not is_plain_name(name)), None):
            raise InputError(
                f"{wrong[:80]!r} in {self.root} cannot be the name of a sequence.", "Correct the list, or rename it."
            )
        if wanted:
            return tuple(dict.fromkeys(wanted)), listed
        if listed is None:
            places = " nor ".join(str(path) for path in self.lists(split))
            raise InputError(
                f"There is no list of the {split} split: {'neither ' if ' nor ' in places else ''}{places} "
                f"{'exists' if ' nor ' in places else 'does not exist'}.",
                f"Give another --split, --split {ALL} for every sequence of the tree, or name some with --sequence.",
            )
        if not listed:
            raise InputError(f"{self.annotations} has no sequences.", "Give the folder of DAVIS with --data.")
        return listed, listed

    def read(self, names: Sequence[str]) -> tuple[AnnotatedClip, ...]:
        """The sequences, verified: frames and masks are there and belong together, and masks have the frames' size.

        Of every mask but the first, only the header is read.

        Raises:
            InputError: names every piece that is missing or does not fit.
        """
        pieces: list[str] = []
        clips = [self._read(name, pieces) for name in names]
        if pieces:
            raise InputError(
                f"{self.root} is not a whole DAVIS-{self.year} tree: {_listed(pieces)}.",
                "Complete it, or name the sequences that are whole with --sequence.",
            )
        return tuple(clip for clip in clips if clip is not None)

    def truth(self, path: Path) -> Mask:
        """A mask of the tree as it counts: 2016, everything that is not black is object 1; 2017, void is background.

        Raises:
            InputError: unreadable, or not of one channel.
        """
        return counted_mask(read_indexed_png(path), self.year)

    def _read(self, name: str, pieces: list[str]) -> AnnotatedClip | None:
        """One sequence, or None and what is wrong with it in `pieces`."""
        folders = {"frames": self.frames / name, "masks": self.annotations / name}
        missing = [f"{self._short(f)} ({kind}) is missing" for kind, f in folders.items() if not f.is_dir()]
        if missing:
            pieces += missing
            return None
        frames, masks = _files(folders["frames"], ".jpg"), _files(folders["masks"], ".png")
        if wrong := [mask.name for mask in masks if not is_plain_name(mask.name)]:
            pieces.append(f"{name} has masks whose names are not UTF-8: {_listed(wrong, ', ')}")
            return None
        if unpaired := _unpaired(frames, masks):
            pieces.append(f"{name} has {unpaired}")
            return None
        try:
            stored, (width, height) = read_indexed_png(masks[0]), read_header(frames[0])[0]
        except InputError as error:
            pieces.append(error.message.replace(str(self.root) + os.sep, "").rstrip("."))
            pieces += [f"{self._short(folders['masks'])} has {fault}" for fault in _unfitting(masks[1:])]
            return None
        mask = counted_mask(stored, self.year)
        if mask.size != (height, width):
            sizes = "{1}x{0}, but its frame {2}x{3}".format(*mask.size, width, height)
            pieces.append(f"{self._short(masks[0])} is {sizes}")
        elif not mask.objects:
            hint = ", only black and white (--year 2016?)" if (stored.ids == VOID).any() else ""
            pieces.append(f"{self._short(masks[0])} has no object{hint}")
        elif self.year == 2016 and len(np.unique(stored.ids)) > 2:
            pieces.append(f"{self._short(masks[0])} is not black and white (--year 2017?)")
        pieces += [f"{self._short(folders['masks'])} has {fault}" for fault in _unfitting(masks, (width, height))]
        return AnnotatedClip(Clip(name, frames), masks, int(mask.ids.max()))

    def _short(self, path: Path) -> str:
        """The path below the root."""
        return str(path.relative_to(self.root))

    def _other_place(self) -> str:
        """What to give instead of a folder that has not got the usual ones."""
        parents = [self.root / name for name in FOLDERS]
        sizes = [{f.name for f in parent.iterdir() if f.is_dir()} for parent in parents if parent.is_dir()]
        if len(sizes) == len(parents) and sizes[0] & sizes[1]:
            return f"Give a resolution that is there: {', '.join(sorted(sizes[0] & sizes[1]))}."
        nearby = suggest_folder(self.root, FOLDERS, "--data")
        return nearby or "Give the folder that holds JPEGImages and Annotations."


def counted_mask(stored: Mask, year: Year) -> Mask:
    """A stored mask as it counts: 2016, everything that is not black is object 1; 2017, void is background."""
    if year == 2016:
        return Mask((stored.ids != BACKGROUND).astype(np.uint8))
    return Mask(np.where(stored.ids == VOID, np.uint8(BACKGROUND), stored.ids))


def suggest_folder(given: Path, holds: Sequence[str], option: str) -> str:
    """A question that names the folder that was probably meant: up to three levels above the given one, or one below.

    Args:
        given: the folder that is not what it should be.
        holds: names of the folders that the right one has.
        option: the option that `given` was given with ("--data").

    Returns:
        "Did you mean --data FOLDER?", or nothing where no such folder is near.
    """
    # Unlike `is_dir`, `glob` does not stop at folders that may not be entered.
    near = [*given.absolute().parents[:3], *sorted(path.parent for path in given.glob(f"*/{holds[0]}"))]
    meant = next((folder for folder in near if all(any(folder.glob(name)) for name in holds)), None)
    return f"Did you mean {option} {meant}?" if meant else ""


def _files(folder: Path, suffix: str) -> tuple[Path, ...]:
    """The visible files of one kind, sorted by name without suffix."""
    files = (f for f in folder.iterdir() if f.suffix.lower() == suffix and not f.name.startswith(".") and f.is_file())
    return tuple(sorted(files, key=lambda file: (file.stem, file.name)))


def _unpaired(frames: Sequence[Path], masks: Sequence[Path]) -> str:
    """What keeps a sequence from being pairs of a frame and its mask; nothing if that is what it is."""
    stems = [[file.stem for file in files] for files in (frames, masks)]
    counts = f"{len(frames)} frames (.jpg) and {len(masks)} masks (.png)"
    if len(masks) < FEWEST_FRAMES:
        return f"{counts}, fewer than the {FEWEST_FRAMES} it takes to score one"
    alone = {
        "frames without a mask": [frame.name for frame in frames if frame.stem not in stems[1]],
        "masks without a frame": [mask.name for mask in masks if mask.stem not in stems[0]],
    }
    if any(alone.values()):
        return " and ".join(f"{kind}: {_listed(names, ', ')}" for kind, names in alone.items() if names)
    return "" if stems[0] == stems[1] else f"{counts}: some have the same name"


def _unfitting(masks: Sequence[Path], frame: tuple[int, int] | None = None) -> list[str]:
    """What the headers say: which are no PNG, and which, after the first, have not the (width, height) of the frame."""
    sizes = {mask.name: _png_size(mask) for mask in masks}
    broken = [name for name, size in sizes.items() if size is None]
    faults = [f"masks that cannot be read as PNG: {_listed(broken, ', ')}"] if broken else []
    other = [f"{name} ({size[0]}x{size[1]})" for name, size in [*sizes.items()][1:] if size and size != frame]
    if frame and other:
        faults.append(f"masks that are not {frame[0]}x{frame[1]} as the first frame: {_listed(other, ', ')}")
    return faults


def _png_size(path: Path) -> tuple[int, int] | None:
    """(width, height) from the header; None if there is none."""
    try:
        header = inspect_picture(path, "mask")
    except InputError:
        return None
    height, width = header.size
    return (width, height) if header.format == "PNG" else None


def _listed(pieces: Sequence[str], separator: str = "; ") -> str:
    """Some of them, and how many more there are."""
    shown = separator.join(pieces[:_SHOWN])
    return f"{shown}{separator}and {len(pieces) - _SHOWN} more" if len(pieces) > _SHOWN else shown
