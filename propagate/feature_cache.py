"""Features on disk: a folder that is bounded in size, safe against a kill, and may be shared by several runs.

Files are written beside their place and renamed, so that a killed run leaves whole entries and, at most, unfinished
files, which a later run removes. What cannot be read is not there.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from propagate.errors import InputError
from propagate.formats import atomic_path, prepare_output

DEFAULT_CACHE_BYTES = 20 * 10**9
_SHARE = 16  # after this part of the limit, what other runs have written is looked at again
_HEADER = 128  # bytes of a file beside the features, at most
_ABANDONED_S = 3600.0  # an unfinished file as old as this is one of a run that was killed


class CacheWarning(UserWarning):
    """Features could not be kept, and the run goes on without keeping more."""


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
        self._closed = False

    def load(self, path: Path) -> Float[Tensor, "c h w"] | None:
        """The features in a file of this cache; None where it is not there or cannot be read."""
        try:
            found: Tensor = load_file(path)["features"]
        except (OSError, SafetensorError, KeyError, ValueError):
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
            if size > self._room:
                self._make_room(size)
            if size > self._room:
                self._close(f"{self.limit / 1e9:.3g} GB are full. Raise --cache-size")
                return
            with atomic_path(path) as temporary:
                save_file({"features": features.detach().cpu().contiguous()}, temporary)
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
            with suppress(OSError):  # another run was faster
                path.unlink()
            taken -= freed
        self._room = min(wanted, self.limit - taken)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The entries with their sizes and times; on the way, what killed runs have left unfinished is removed."""
    for path in folder.glob("*/*.safetensors"):
        with suppress(OSError):
            status = path.stat()
            if not path.name.startswith("."):
                yield path, status
            elif time.time() - status.st_mtime > _ABANDONED_S:
                path.unlink()
