"""A lock, so that one run at a time writes into a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from propagate.errors import InputError
from propagate.files.atomic import write_error

LOCK = ".propagate.lock"
"""Name of the lock file in the folder of a run; its content does not matter."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(folder: str | Path) -> Iterator[tuple[str, ...]]:
    """Lock an existing folder for one run; yield a sentence for the user if the file system has no locks.

    The system releases the lock with the process, however it ends: a killed run leaves an empty file that the next run
    reuses and removes. InputError if another run holds the lock, or if it cannot be created; links are not followed.
    """
    path = Path(folder) / LOCK
    # filelock's own fallback is a file that outlives a killed process
    lock = FileLock(path.absolute(), mode=0o666, fallback_to_soft=False)
    notes: tuple[str, ...] = ()
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"Another run is writing into {folder}.", "Wait for it to end, or choose another folder with --output."
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink() or path.is_dir():
            raise InputError(f"{path} is a link or a folder, not a lock.", "Remove it.") from error
        if error.errno not in _NO_LOCKS:
            raise write_error(Path(folder), error) from error
        notes = (f"The file system of {folder} has no locks: let no other run write into this folder meanwhile.",)
    try:
        yield notes
    finally:
        # Removed while locked: another process that has just opened it sees that its name is gone, and starts over.
        with suppress(OSError):
            path.unlink()
        lock.release()
        if os.name == "nt":  # open files cannot be removed there
            with suppress(OSError):
                path.unlink()
