"""Local files that extractors' options name, and their digests, cached on disk until a file changes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from propagate.errors import PropagateError, WeightsError
from propagate.files.atomic import atomic_path
from propagate.files.documents import read_json
from propagate.weights.locating import cache_folder

# options of our extractors whose values are paths
FILE_OPTIONS = ("weights", "base", "config", "aggregator", "embedding", "head")

_FORMAT = "propagate digests 1"
_ENTRIES = 2000
_DIGEST = re.compile("[0-9a-f]{64}")
# a file written this shortly before the read may change again within its time stamp's precision
_SETTLED_NS = 2_000_000_000

_known: dict[str, str] = {}  # of this process


def expanded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the `~` of paths replaced by the home folder."""
    return {key: _home(value) if key in FILE_OPTIONS else value for key, value in options.items()}


def _home(value: Any) -> Any:
    if isinstance(value, str | Path):
        return type(value)(os.path.expanduser(value))  # noqa: PTH111  pathlib's raises where there is no home
    return value


def named_files(options: Mapping[str, Any], *, all_options: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield option and path of the local files and folders among an extractor's options.

    Args:
        options: the options.
        all_options: for foreign extractors: check every text that can be a path.
    """
    for option, value in options.items():
        if isinstance(value, str | Path) and str(value) and (option in FILE_OPTIONS or all_options):
            path = Path(_home(value))
            looks_like_one = isinstance(value, Path) or len(path.parts) > 1 or path.suffix
            if (option in FILE_OPTIONS or looks_like_one) and path.exists():
                yield option, path


def files_in(place: Path) -> tuple[Path, ...]:
    """Return a file, or the sorted files of a folder without hidden ones and compiled Python."""
    if not place.is_dir():
        return (place,)
    found = []
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".") and not name.endswith(".pyc")]
    return tuple(sorted(path for path in found if path.is_file()))


def fingerprint(files: tuple[Path, ...]) -> str:
    """Return a hash of the files' names and whole contents, or raise a WeightsError if one cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {file_digest(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, cached under its path, size, inode and times of change."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            key = f"{path.resolve()} {status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
            if (known := _known.get(key) or _read().get(key)) is None:
                known = hashlib.file_digest(file, "sha256").hexdigest()
                if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
                    _write(key, known)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} is not a readable weight file ({reason}).", "Check the path.") from error
    return known


def _place() -> Path:
    return cache_folder() / "digests.json"


def _read() -> dict[str, str]:
    """Return the cached digests; empty if the file is missing, damaged or not ours."""
    try:
        content: Any = read_json(_place())
    except PropagateError:
        return {}
    digests = content.get("digests") if isinstance(content, dict) and content.get("format") == _FORMAT else None
    if not isinstance(digests, dict):
        return {}
    return {key: value for key, value in digests.items() if isinstance(value, str) and _DIGEST.fullmatch(value)}


def _write(key: str, digest: str) -> None:
    _known[key] = digest
    digests = dict(list({**_read(), key: digest}.items())[-_ENTRIES:])
    # without the cache the next run only takes longer
    with suppress(OSError, UnicodeEncodeError, PropagateError):
        _place().parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(_place()) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, "digests": digests}), encoding="utf-8")
