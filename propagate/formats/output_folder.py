"""The folder that a run writes into."""

from __future__ import annotations

from pathlib import Path

from propagate.errors import InputError, UsageError
from propagate.formats.atomic import write_error


def prepare_output(folder: str | Path, *, overwrite: bool) -> Path:
    """Make sure that results can be written to `folder`, before any work is done.

    Nothing is ever deleted: with `overwrite`, files of an older run are replaced one by one as new ones of the same
    name are finished, and others stay.

    Args:
        folder: is created, with its parents, where it does not exist.
        overwrite: accept a folder that holds something already.

    Returns:
        The folder.

    Raises:
        UsageError: the folder is not empty and `overwrite` is false.
        InputError: it is a file, or cannot be created or written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file, not a folder.", "Choose another with --output.")
    probe = folder / ".write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()):
            raise UsageError(
                f"The output folder {folder} is not empty.",
                "Choose another with --output, or give --overwrite to replace what is in it.",
            )
        # Written rather than asked for: access bits say nothing of full disks, read-only mounts or quotas.
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return folder
