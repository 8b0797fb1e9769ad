"""Names, paths and folders of other people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from propagate.errors import InputError

_LONGEST_NAME = 255  # bytes, on every common file system


def is_plain_name(name: str) -> bool:
    """Whether this is the name of one file or folder: no path, not "." or "..", text that a file system takes."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\0"):
        return False
    try:
        return len(name.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False


def real_path(path: Path) -> Path:
    """Return the absolute path without links. Unlike `Path.resolve`, takes a loop of links as it is."""
    return Path(os.path.realpath(path))


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turn whatever the system says of files in the block into an error of ours.

    Args:
        place: is named where the system names no file.

    Raises:
        InputError: a file or folder cannot be read.
    """
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else place
        raise InputError(f"{named} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
