"""Features on disk: a folder that is bounded in size, safe against a kill, and may be shared by several runs.

Entries are written beside their place and renamed, so that a killed run leaves whole entries and, at most, unfinished
files, which a later run removes. Each carries a mark and a checksum: what is damaged is not used, and what is not
marked is not removed. Folders of entries carry a mark as well (`CACHEDIR.TAG`, by which backup programs leave them
out); in other folders nothing is looked at. Links are not followed.
"""

from __future__ import annotations

import os
import re
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from propagate.errors import InputError, PropagateWarning
from propagate.files.atomic import atomic_path
from propagate.files.checked_tensors import DamagedError, is_marked, read_tensor, write_tensor
from propagate.formats import prepare_output

DEFAULT_CACHE_BYTES = 20 * 10**9
_KIND = "propagate features 1"
_TAG = "CACHEDIR.TAG"
# the signature is that of https://bford.info/cachedir
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Features that propagate can compute again.\n"
_UNFINISHED = re.compile(r"\..{1,40}\.[0-9a-f]{8}\.(safetensors|json|TAG)")  # names of `atomic_path`
_SHARE = 16  # after this part of the limit, what other runs have written is looked at again
_HEADER = 192  # bytes of a file beside the features, at most
_ABANDONED_S = 3600.0  # an unfinished file as old as this is one of a run that was killed


class CacheWarning(PropagateWarning):
    """Features could not be kept or are damaged, and the run goes on."""


class FeatureCache:
    """A folder of features, bounded in size; the entries that were not used for longest go first.

    A run removes nothing that it has written or used itself: of a clip that does not fit, the first frames stay, with a
    `CacheWarning`. Runs that write at the same time can exceed the bound by a sixteenth of it each.

    Args:
        folder: is created where it does not exist; other files in it are left alone.
        limit: bytes.

    Attributes:
        counts: of this run: features "found", those "computed", and of these those "kept".

    Raises:
        InputError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder, self.limit = prepare_output(folder, overwrite=True), limit
        self.counts = {"found": 0, "computed": 0, "kept": 0}
        self._used: set[Path] = set()
        self._room = 0  # bytes to write before the folder is looked through again
        self._closed = self._is_damage_told = False

    def claim(self, name: str) -> Path:
        """Return the folder of this name in the cache, with the mark; it is created where it does not exist.

        Raises:
            InputError: it cannot be created, or is a link.
        """
        place = self.folder / name
        if place.is_symlink():
            raise InputError(f"{place} is a link, which a cache does not follow.", "Remove it, or name another folder.")
        if not _is_ours(place):
            prepare_output(place, overwrite=True)
            with atomic_path(place / _TAG) as temporary:
                temporary.write_text(_TAG_TEXT, encoding="ascii")
        return place

    def load(self, path: Path) -> Float[Tensor, "c h w"] | None:
        """Return the features in a file of this cache; None where it is missing or, with a `CacheWarning`, damaged."""
        try:
            found = read_tensor(path, _KIND)
        except DamagedError as error:
            if not self._is_damage_told:
                self._is_damage_told = True
                warnings.warn(
                    f"Features in the cache are damaged and computed again: {path} and maybe others ({error}).",
                    CacheWarning,
                    stacklevel=2,
                )
            return None
        if found is None:
            return None
        with suppress(OSError):
            os.utime(path)
        self._used.add(path)
        return found

    def keep(self, path: Path, features: Float[Tensor, "c h w"]) -> None:
        """Write features to a file of this cache, if there is room; a `CacheWarning` where there is none."""
        if self._closed:
            return
        size = features.nbytes + _HEADER
        try:
            self.claim(path.parent.name)
            if size > self._room:
                self._make_room(size)
            if size > self._room:
                self._close(f"{self.limit / 1e9:.3g} GB are full. Raise --cache-size")
                return
            with atomic_path(path) as temporary:
                write_tensor(temporary, features, _KIND, path.name)
        except (OSError, InputError, SafetensorError) as error:
            self._close(str(error))
            return
        self._room -= size
        self._used.add(path)
        self.counts["kept"] += 1

    def _close(self, reason: str) -> None:
        self._closed = True
        warnings.warn(f"No more features are kept in {self.folder}: {reason}", CacheWarning, stacklevel=3)

    def _make_room(self, size: int) -> None:
        """Remove the oldest entries until a sixteenth of the limit, or at least `size`, is free."""
        others, taken = [], 0
        for path, status in _entries(self.folder):
            taken += status.st_size
            if path not in self._used:
                others.append((status.st_mtime_ns, path, status.st_size))
        wanted = max(self.limit // _SHARE, size)
        for _, path, freed in sorted(others):
            if taken + wanted <= self.limit:
                break
            if is_marked(path, _KIND):  # what is not ours stays, and does not count
                with suppress(OSError):  # another run was faster
                    path.unlink()
            taken -= freed
        self._room = min(wanted, self.limit - taken)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The entries with their sizes and times; on the way, what killed runs have left unfinished is removed."""
    for place in _listed(folder):
        if not place.is_dir(follow_symlinks=False) or not _is_ours(Path(place)):
            continue
        for file in _listed(Path(place)):
            with suppress(OSError):
                status = file.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    continue
                if _UNFINISHED.fullmatch(file.name):
                    if time.time() - status.st_mtime > _ABANDONED_S:
                        Path(file).unlink()
                elif file.name.endswith(".safetensors") and not file.name.startswith("."):
                    yield Path(file), status


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # removed by another run, or not readable
        return []


def _is_ours(folder: Path) -> bool:
    tag = folder / _TAG
    try:
        return stat.S_ISREG(tag.lstat().st_mode) and tag.read_text(encoding="ascii") == _TAG_TEXT
    except (OSError, ValueError):
        return False
