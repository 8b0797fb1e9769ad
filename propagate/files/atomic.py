"""Atomic writes: to a temporary file in the same folder, then a rename."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from propagate.errors import InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EFBIG, errno.EIO)
_MARK = "propagate"
_TEMPORARY = re.compile(rf"\..{{0,40}}\.[0-9a-f]{{8}}\.{_MARK}(\.[^.]*)?", re.DOTALL)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, an empty file, that is renamed to `path` when the block ends without an exception.

    The temporary file lies in the same folder, because a rename across file systems is not atomic. Its name starts with
    a dot and keeps the suffix, by which writers choose their format. It is created at once, so that a folder that
    cannot be written is an error before the work starts. Any exception, KeyboardInterrupt included, removes it.

    Raises:
        InputError: `path` cannot be written (missing folder, no permission, read-only or full disk).
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if _is_about(error, path, temporary):
            raise write_error(path, error) from error
        raise
    finally:
        # No file after the rename; no remedy on a disk that is gone.
        with suppress(OSError):
            temporary.unlink()


def temporary_path(path: Path) -> Path:
    """Return a new hidden name beside `path`, with its suffix and a mark for `remove_leftovers`."""
    return path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.{_MARK}{path.suffix}")


def is_leftover(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a temporary file of `atomic_path`, not a link. Another run may be writing it."""
    return _TEMPORARY.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed runs left in this folder, not in its subfolders."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_leftover(entry):
                Path(entry).unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> InputError:
    """Return the error for a file or folder that cannot be written."""
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return InputError(f"{path} cannot be written: the disk is full.", "Free some space or choose another output.")
    if error.errno in _ACCESS:
        return InputError(f"{path} cannot be written: {reason}.", "Choose an output that you may write to.")
    if error.errno == errno.ENOENT:
        return InputError(f"{path} cannot be written: the folder {path.parent} does not exist.", "Create it first.")
    if error.errno == errno.ENOTDIR:
        return InputError(f"{path} cannot be written: a part of this path is a file, not a folder.", "Choose another.")
    if error.errno == errno.EEXIST and error.filename and os.path.islink(error.filename):  # noqa: PTH114
        reason = f"{os.fsdecode(error.filename)} is a link to something that does not exist"
    return InputError(f"{path} cannot be written: {reason}.", "Choose another output.")


def _is_about(error: OSError, path: Path, temporary: Path) -> bool:
    """Return whether the error comes from writing this file, not from other work inside the block."""
    if error.filename is None:  # a failed write() carries no name
        return error.errno in (*_DISK_FULL, *_ACCESS, *_PLACE)
    return os.fsdecode(error.filename) in (str(path), str(temporary))
