"""One run at a time writes into a folder."""

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
"""Name of the lock's file. It lies in the folder while a run writes there; what it holds does not matter."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(folder: str | Path) -> Iterator[tuple[str, ...]]:
    """Hold a folder for one run; a second run that wants it is refused while the first one lasts.

    The system drops the lock with the process, however that ends: what a killed run leaves is an empty file that the
    next run takes over and removes. The file is never followed through a link, and never written to.

    Args:
        folder: an existing folder.

    Yields:
        Sentences for the user: one where the file system has no locks and the folder is not guarded; else none.

    Raises:
        InputError: another run writes into the folder, or the lock's file cannot be made.
    """
    path = Path(folder) / LOCK
    # its own fallback is a file that outlives a killed process
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
        # Removed while it is held: whoever opened it meanwhile sees that it has no name any more, and starts over.
        with suppress(OSError):
            path.unlink()
        lock.release()
        if os.name == "nt":  # an open file has a name there, and cannot be removed
            with suppress(OSError):
                path.unlink()
