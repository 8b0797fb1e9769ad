"""The output folder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from propagate.errors import InputError, UsageError
from propagate.files.atomic import is_leftover, remove_leftovers, temporary_path, write_error
from propagate.files.lock import LOCK, locked

MASKS, SOFT, HEAT = "masks", "soft", "heat"
"""Names of subfolders: masks, soft labels, similarity maps."""

_SUBFOLDERS = (MASKS, SOFT, HEAT)


def prepare_output(folder: str | Path, *, overwrite: bool) -> Path:
    """Check that results can be written to a folder, create it and its parents if missing, and return it.

    No result is deleted: with `overwrite`, finished files replace those of the same name, and others stay.

    Raises:
        UsageError: the folder is not empty (see `is_vacant`) and `overwrite` is false.
        InputError: it is a file, or cannot be created or written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file, not a folder.", "Choose another with --output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (overwrite or is_vacant(folder)):
            raise UsageError(
                f"The output folder {folder} is not empty.",
                "Choose another with --output, or give --overwrite to replace what is in it.",
            )
        # Write a new file: access bits do not show full disks, read-only mounts or quotas, and an existing file may be
        # a link.
        probe = temporary_path(folder / "write-test")
        try:
            probe.touch(exist_ok=False)
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return folder


@contextmanager
def held_output(folder: str | Path, *, overwrite: bool) -> Iterator[tuple[str, ...]]:
    """Prepare and lock a folder for one run; remove temporary files of killed runs from it and its subfolders.

    Arguments and errors as `prepare_output`, notes and errors as `locked`; InputError if a subfolder is a link.
    """
    folder = Path(folder)
    # Check an existing folder under the lock only, since another run may just write to it.
    if not folder.is_dir():
        prepare_output(folder, overwrite=True)
    with locked(folder) as notes:
        prepare_output(folder, overwrite=overwrite)
        for place in (folder, *(folder / name for name in _SUBFOLDERS)):
            if place != folder and place.is_symlink():
                raise InputError(f"{place} is a link, and results are not written through it.", "Remove the link.")
            remove_leftovers(place)
        yield notes


def is_vacant(folder: Path) -> bool:
    """Return whether a folder is empty but for leftovers of a run that was killed before its first result."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _SUBFOLDERS and entry.is_dir(follow_symlinks=False) and is_vacant(Path(entry)):
                continue
            if not (is_leftover(entry) or (entry.name == LOCK and entry.is_file(follow_symlinks=False))):
                return False
    return True
