"""The files of DAVIS 2016 and 2017: listing and verifying sequences.

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
from propagate.benchmarks.scoring import listed, suggest_folder
from propagate.errors import InputError, UsageError
from propagate.files.documents import read_text
from propagate.files.names import is_plain_name
from propagate.files.pictures import inspect_picture
from propagate.formats import read_indexed_png
from propagate.types import BACKGROUND, VOID, Mask
from propagate.video.folder import read_header

Year = Literal[2016, 2017]

ALL = "all"  # the split of all sequences in the tree, with or without lists
FOLDERS = ("JPEGImages", "Annotations")
_FEWEST_FRAMES = 3  # the first and the last are not scored


@dataclass(frozen=True)
class AnnotatedClip:
    """A clip and its truth."""

    clip: Clip  # name and frames
    masks: tuple[Path, ...]  # one per frame, in order
    objects: int  # number of scored objects: the highest id of the first mask


@dataclass(frozen=True)
class Tree:
    """A folder in DAVIS layout."""

    root: Path  # folder with `JPEGImages` and `Annotations`
    year: Year  # format of lists and masks: 2016 has one object in black and white, 2017 has object ids
    resolution: str  # subfolder of one size ("480p", "Full-Resolution")

    @property
    def frames(self) -> Path:
        """Folder of the sequences' frames."""
        return self.root / "JPEGImages" / self.resolution

    @property
    def annotations(self) -> Path:
        """Folder of the sequences' masks."""
        return self.root / "Annotations" / self.resolution

    def names(self) -> tuple[str, ...]:
        """Return the sorted names of the sequences that have masks."""
        if not is_plain_name(self.resolution):
            raise UsageError(f"--resolution {self.resolution}: not the name of a folder.", "Give 480p, for example.")
        if not self.root.is_dir():
            raise InputError(f"The folder {self.root} does not exist.", "Give the folder of DAVIS with --data.")
        missing = [folder for folder in (self.frames, self.annotations) if not folder.is_dir()]
        if missing:
            faults = "; ".join(f"the folder {folder} is missing" for folder in missing)
            raise InputError(f"{self.root} is not a DAVIS tree: {faults}.", self._remedy())
        return tuple(sorted(f.name for f in self.annotations.iterdir() if f.is_dir() and not f.name.startswith(".")))

    def split(self, split: str) -> tuple[str, ...] | None:
        """Return the names of a split in the order of its list; None where it has no list."""
        if not is_plain_name(split):
            raise UsageError(f"--split {split}: not the name of a list.", f"Give val, train or {ALL}.")
        if split == ALL:
            return self.names()
        path = next((path for path in self.lists(split) if path.is_file()), None)
        if path is None:
            return None
        # With two paths per line, the sequence is the folder of the frame.
        entries = [Path(line.split()[0]) for line in read_text(path, "list").split("\n") if line.strip()]
        names = tuple(dict.fromkeys(e.parent.name if len(e.parts) > 1 else e.name for e in entries))
        if not names:
            raise InputError(f"The list {path} is empty.", "Replace it.")
        return names

    def lists(self, split: str) -> tuple[Path, ...]:
        """Return the possible paths of a split's list, the usual one first."""
        folders = ("2017",) if self.year == 2017 else dict.fromkeys((self.resolution, "480p", "2016"))
        return tuple(self.root / "ImageSets" / folder / f"{split}.txt" for folder in folders)

    def select(self, split: str, sequences: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """Return the names to use, and those of the split's list; None where it has no list and `sequences` are given.

        Raises:
            InputError: the list is missing, unreadable or empty.
            UsageError: a sequence is not in the tree.
        """
        present, in_list = self.names(), self.split(split)
        for name in sequences:
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                raise UsageError(
                    f"--sequence {name}: {self.annotations} has no such sequence.",
                    f"Did you mean {near[0]}?" if near else f"There are: {listed(present)}.",
                )
        if wrong := next((name for name in (*(in_list or ()), *sequences) if not is_plain_name(name)), None):
            raise InputError(
                f"{wrong[:80]!r} in {self.root} cannot be the name of a sequence.", "Correct the list, or rename it."
            )
        if sequences:
            return tuple(dict.fromkeys(sequences)), in_list
        if in_list is None:
            places = [str(path) for path in self.lists(split)]
            missing = f"{places[0]} does not exist" if len(places) == 1 else f"neither {' nor '.join(places)} exists"
            raise InputError(
                f"There is no list of the {split} split: {missing}.",
                f"Give another --split, --split {ALL} for all sequences of the tree, or select some with --sequence.",
            )
        if not in_list:
            raise InputError(f"{self.annotations} has no sequences.", "Give the folder of DAVIS with --data.")
        return in_list, in_list

    def read(self, names: Sequence[str]) -> tuple[AnnotatedClip, ...]:
        """Verify sequences: each frame has a mask of the same size. Only first masks are read in full."""
        faults: list[str] = []
        clips = [self._read(name, faults) for name in names]
        if faults:
            raise InputError(
                f"{self.root} is not a complete DAVIS-{self.year} tree: {listed(faults, '; ')}.",
                "Complete it, or select complete sequences with --sequence.",
            )
        return tuple(clip for clip in clips if clip is not None)

    def truth(self, path: Path) -> Mask:
        """Read a mask of the tree and convert it; see `convert_mask`."""
        return convert_mask(read_indexed_png(path), self.year)

    def _read(self, name: str, faults: list[str]) -> AnnotatedClip | None:
        """Verify one sequence and append its faults; None where it cannot be used."""
        folders = {"frames": self.frames / name, "masks": self.annotations / name}
        if missing := [f"{self._short(f)} ({kind}) is missing" for kind, f in folders.items() if not f.is_dir()]:
            faults += missing
            return None
        frames, masks = _files(folders["frames"], ".jpg"), _files(folders["masks"], ".png")
        if wrong := [mask.name for mask in masks if not is_plain_name(mask.name)]:
            faults.append(f"{name} has masks whose names are not UTF-8: {listed(wrong)}")
            return None
        if unpaired := _unpaired(frames, masks):
            faults.append(f"{name} has {unpaired}")
            return None
        try:
            stored, (width, height) = read_indexed_png(masks[0]), read_header(frames[0])[0]
        except InputError as error:
            faults.append(error.message.replace(str(self.root) + os.sep, "").rstrip("."))
            faults += [f"{self._short(folders['masks'])} has {fault}" for fault in _header_faults(masks[1:])]
            return None
        mask = convert_mask(stored, self.year)
        if mask.size != (height, width):
            sizes = "{1}x{0}, but its frame {2}x{3}".format(*mask.size, width, height)
            faults.append(f"{self._short(masks[0])} is {sizes}")
        elif not mask.objects:
            hint = ", only black and white (--year 2016?)" if (stored.ids == VOID).any() else ""
            faults.append(f"{self._short(masks[0])} has no object{hint}")
        elif self.year == 2016 and len(np.unique(stored.ids)) > 2:
            faults.append(f"{self._short(masks[0])} is not black and white (--year 2017?)")
        faults += [f"{self._short(folders['masks'])} has {fault}" for fault in _header_faults(masks, (width, height))]
        return AnnotatedClip(Clip(name, frames), masks, int(mask.ids.max()))

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def _remedy(self) -> str:
        parents = [self.root / name for name in FOLDERS]
        sizes = [{f.name for f in parent.iterdir() if f.is_dir()} for parent in parents if parent.is_dir()]
        if len(sizes) == len(parents) and sizes[0] & sizes[1]:
            return f"Give an existing resolution: {', '.join(sorted(sizes[0] & sizes[1]))}."
        return suggest_folder(self.root, FOLDERS, "--data") or f"Give the folder that holds {' and '.join(FOLDERS)}."


def convert_mask(stored: Mask, year: Year) -> Mask:
    """Convert a stored mask for scoring. 2016: all that is not black is object 1; 2017: void is background."""
    if year == 2016:
        return Mask((stored.ids != BACKGROUND).astype(np.uint8))
    return Mask(np.where(stored.ids == VOID, np.uint8(BACKGROUND), stored.ids))


def _files(folder: Path, suffix: str) -> tuple[Path, ...]:
    """Return the visible files with a suffix, sorted by stem."""
    files = (f for f in folder.iterdir() if f.suffix.lower() == suffix and not f.name.startswith(".") and f.is_file())
    return tuple(sorted(files, key=lambda file: (file.stem, file.name)))


def _unpaired(frames: Sequence[Path], masks: Sequence[Path]) -> str:
    """Say why frames and masks are not pairs; empty where they are."""
    stems = [[file.stem for file in files] for files in (frames, masks)]
    counts = f"{len(frames)} frames (.jpg) and {len(masks)} masks (.png)"
    if len(masks) < _FEWEST_FRAMES:
        return f"{counts}, fewer than the {_FEWEST_FRAMES} it takes to score one"
    alone = {
        "frames without a mask": [frame.name for frame in frames if frame.stem not in stems[1]],
        "masks without a frame": [mask.name for mask in masks if mask.stem not in stems[0]],
    }
    if any(alone.values()):
        return " and ".join(f"{kind}: {listed(names)}" for kind, names in alone.items() if names)
    return "" if stems[0] == stems[1] else f"{counts}: some have the same name"


def _header_faults(masks: Sequence[Path], frame: tuple[int, int] | None = None) -> list[str]:
    """Name masks that are not PNG or, after the first, do not have the (width, height) of the frame."""
    sizes = {mask.name: _png_size(mask) for mask in masks}
    broken = [name for name, size in sizes.items() if size is None]
    faults = [f"masks that cannot be read as PNG: {listed(broken)}"] if broken else []
    other = [f"{name} ({size[0]}x{size[1]})" for name, size in [*sizes.items()][1:] if size and size != frame]
    if frame and other:
        faults.append(f"masks that are not {frame[0]}x{frame[1]} like the first frame: {listed(other)}")
    return faults


def _png_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) of a PNG from its header; None for other files."""
    try:
        header = inspect_picture(path, "mask")
    except InputError:
        return None
    height, width = header.size
    return (width, height) if header.format == "PNG" else None
