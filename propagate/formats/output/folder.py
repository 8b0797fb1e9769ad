"""The folder that a run writes into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from propagate.errors import InputError, UsageError
from propagate.files.atomic import is_leftover, remove_leftovers, temporary_path, write_error
from propagate.files.lock import LOCK, locked

MASKS, SOFT, HEAT = "masks", "soft", "heat"
"""Folders in the output folder: pictures of the masks, soft labels, similarity maps."""

_INSIDE = (MASKS, SOFT, HEAT)


def prepare_output(folder: str | Path, *, overwrite: bool) -> Path:
    """Make sure that results can be written to `folder`, before any work is done.

    No result is ever deleted: with `overwrite`, files of an older run are replaced one by one as new ones of the same
    name are finished, and others stay.

    Args:
        folder: is created, with its parents, where it does not exist.
        overwrite: accept a folder that holds something already.

    Returns:
        The folder.

    Raises:
        UsageError: the folder is not empty and `overwrite` is false; see `is_vacant`.
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
        # Written rather than asked for: access bits say nothing of full disks, read-only mounts or quotas. The name is
        # new, so that nothing that lies there, a link least of all, is written to.
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
    """Prepare a folder as `prepare_output` does, hold it for one run, and remove what killed runs left.

    Temporary files are looked for in the folder and in its folders of masks, soft labels and maps, nowhere else.

    Args:
        folder, overwrite: see `prepare_output`.

    Yields:
        Sentences for the user; see `locked`.

    Raises:
        UsageError, InputError: see `prepare_output` and `locked`.
        InputError: one of its folders is a link: what lies behind it may be somebody else's.
    """
    folder = Path(folder)
    # an existing folder is made ready once it is ours: what another run just wrote is no reason to refuse it
    if not folder.is_dir():
        prepare_output(folder, overwrite=True)
    with locked(folder) as notes:
        prepare_output(folder, overwrite=overwrite)
        for place in (folder, *(folder / name for name in _INSIDE)):
            if place != folder and place.is_symlink():
                raise InputError(f"{place} is a link, and results are not written through it.", "Remove the link.")
            remove_leftovers(place)
        yield notes


def is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but what a run leaves that was killed before its first result.

    Args:
        folder: an existing folder.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _INSIDE and entry.is_dir(follow_symlinks=False) and is_vacant(Path(entry)):
                continue
            if not (is_leftover(entry) or (entry.name == LOCK and entry.is_file(follow_symlinks=False))):
                return False
    return True
