"""A cache of features on disk: bounded in size, safe against kills, shared by several runs.

Entries are renamed from temporary files, which a later run removes after a kill. Each entry has a mark and a checksum:
damaged entries are not used, unmarked files are not removed. Folders of entries are marked, too (`CACHEDIR.TAG`, which
excludes them from backups); other folders are ignored. Links are not followed.
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
_SHARE = 16  # the folder is listed again after writing this part of the limit, since other runs write, too
_HEADER = 192  # upper bound for the bytes of a file beside the features
_ABANDONED_S = 3600.0  # age at which an unfinished file belongs to a killed run


class CacheWarning(PropagateWarning):
    """Features cannot be cached or are damaged; the run continues without them."""


class FeatureCache:
    """A folder of features, bounded to `limit` bytes, that evicts the least recently used entries.

    A run evicts no entry that it wrote or used. If a clip does not fit, its first frames stay cached and there is a
    `CacheWarning`. Runs that write at the same time can each exceed the limit by a sixteenth. `counts` has the features
    "found" by this run, "computed", and "kept" of those. Raises InputError if the folder cannot be created or written.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder, self.limit = prepare_output(folder, overwrite=True), limit
        self.counts = {"found": 0, "computed": 0, "kept": 0}
        self._used: set[Path] = set()
        self._room = 0  # bytes to write before the folder is listed again
        self._is_full = self._has_warned = False

    def claim(self, name: str) -> Path:
        """Return the marked folder of this name, and create it if needed. Raises InputError for a link or a failure."""
        place = self.folder / name
        if place.is_symlink():
            raise InputError(f"{place} is a link, which a cache does not follow.", "Remove it, or name another folder.")
        if not _is_ours(place):
            prepare_output(place, overwrite=True)
            with atomic_path(place / _TAG) as temporary:
                temporary.write_text(_TAG_TEXT, encoding="ascii")
        return place

    def load(self, path: Path) -> Float[Tensor, "c h w"] | None:
        """Read the features in a file of this cache; None if it is missing or, with a `CacheWarning`, damaged."""
        try:
            found = read_tensor(path, _KIND)
        except DamagedError as error:
            if not self._has_warned:
                self._has_warned = True
                message = f"Features in the cache are damaged and computed again: {path} and maybe others ({error})."
                warnings.warn(message, CacheWarning, stacklevel=2)
            return None
        if found is not None:
            with suppress(OSError):
                os.utime(path)
            self._used.add(path)
        return found

    def keep(self, path: Path, features: Float[Tensor, "c h w"]) -> None:
        """Write features to a file of this cache; a `CacheWarning` if they do not fit."""
        if self._is_full:
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
        self._is_full = True
        warnings.warn(f"No more features are kept in {self.folder}: {reason}", CacheWarning, stacklevel=3)

    def _make_room(self, size: int) -> None:
        """Remove the oldest entries until a sixteenth of the limit, or at least `size`, is free."""
        others, taken = [], 0
        for path, status in _entries(self.folder):
            taken += status.st_size
            if path not in self._used:
                others.append((status.st_mtime_ns, path, status.st_size))
        target = max(self.limit // _SHARE, size)
        for _, path, freed in sorted(others):
            if taken + target <= self.limit:
                break
            if is_marked(path, _KIND):  # foreign files stay and do not count
                with suppress(OSError):  # another run was faster
                    path.unlink()
            taken -= freed
        self._room = min(target, self.limit - taken)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the entries with their status, and remove unfinished files of killed runs."""
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
