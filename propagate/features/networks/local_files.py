"""Files that extractors' options name on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# options of the extractors of this package whose values are paths
FILE_OPTIONS = ("weights", "base", "config", "aggregator", "embedding", "head")


def expanded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the `~` of paths replaced by the home folder."""
    return {key: _home(value) if key in FILE_OPTIONS else value for key, value in options.items()}


def _home(value: Any) -> Any:
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))  # noqa: PTH111  pathlib's raises where there is no home
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111


def named_files(options: Mapping[str, Any], *, all_options: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield option and path of what lies on this machine.

    Args:
        options: of an extractor.
        all_options: look at every text, of an extractor that is not ours, where it can be a path.
    """
    for option, value in options.items():
        if isinstance(value, str | Path) and str(value) and (option in FILE_OPTIONS or all_options):
            path = Path(_home(value))
            looks_like_one = isinstance(value, Path) or len(path.parts) > 1 or path.suffix
            if (option in FILE_OPTIONS or looks_like_one) and path.exists():
                yield option, path


def files_in(place: Path) -> tuple[Path, ...]:
    """Return a file, or the files of a folder in order, without hidden ones and compiled Python."""
    if not place.is_dir():
        return (place,)
    found = []
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".") and not name.endswith(".pyc")]
    return tuple(sorted(path for path in found if path.is_file()))
