"""Digests of whole weight files: every byte counts, and a file is read again only when it changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from propagate.errors import PropagateError, WeightsError
from propagate.files.documents import read_json
from propagate.weights.locating import cache_folder

_FORMAT = "propagate digests 1"
_ENTRIES = 2000
_DIGEST = re.compile("[0-9a-f]{64}")
# a file that was written this shortly before it was read may change again within its time stamp's precision
_SETTLED_NS = 2_000_000_000

_known: dict[str, str] = {}  # of this process


def fingerprint(files: tuple[Path, ...]) -> str:
    """Return a hash of the files' names and whole contents.

    Raises:
        WeightsError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {file_digest(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Digests are remembered in the user's cache folder under the file's place, size, inode and times of change.

    Raises:
        WeightsError: the file cannot be read.
    """
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
    """What was remembered; nothing where the file is missing, damaged or not ours."""
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
    remembered = {**_read(), key: digest}
    kept = dict(list(remembered.items())[-_ENTRIES:])
    place = _place()
    temporary = place.with_name(f".digests.{secrets.token_hex(4)}.json")
    # what cannot be remembered is read again: that costs the next run its time and this one nothing
    with suppress(OSError, UnicodeEncodeError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps({"format": _FORMAT, "digests": kept}), encoding="utf-8")
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
