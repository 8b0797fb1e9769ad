"""Checks of names, paths and folders of other people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from propagate.errors import InputError


def is_plain_name(name: str) -> bool:
    """Return whether this is a name of one file or folder, not a path, that file systems accept."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\0"):
        return False
    try:
        return len(name.encode()) <= 255  # bytes, on every common file system
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False


def real_path(path: Path) -> Path:
    """Return the absolute path without links. Unlike `Path.resolve`, accept a loop of links."""
    return Path(os.path.realpath(path))


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turn an OSError in the block into an `InputError` about its file, or about `place` if it names none."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else place
        raise InputError(f"{named} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
