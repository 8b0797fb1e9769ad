"""What was fetched from the hub: the commit of a branch and the digests of files, recorded the first time.

A branch such as `main` moves, and most files have no published digest. What is fetched or found later has to agree.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import warnings
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from propagate.errors import InputError, PropagateWarning, WeightsError
from propagate.files.documents import read_json
from propagate.weights.download import cache_folder, disk_full, file_sha256, is_disk_full
from propagate.weights.registry import HubSource

__all__ = ["MovedBranchWarning", "check_record", "recorded_commit", "recorded_digests"]

_COMMIT = re.compile("[0-9a-f]{40}")


class MovedBranchWarning(PropagateWarning):
    """A branch of a repository has moved since its files were fetched first; the files are the same."""


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["propagate hub record 1"] = "propagate hub record 1"
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


def check_record(source: HubSource, folder: Path, *, is_new: bool) -> None:
    """Compare the files of a source with what was recorded; record them where they were just fetched.

    Files found at the recorded commit are not read again (`verify` does that).

    Args:
        source: whose files they are.
        folder: of a commit in the hub's cache, in which they lie.
        is_new: at least one of them was just fetched.

    Raises:
        WeightsError: they are other files, or the record is damaged.
        InputError: it cannot be written.
    """
    commit = folder.name
    if not _COMMIT.fullmatch(commit):
        return
    record = _read(source)
    if not is_new and (record is None or record.commit == commit):
        return
    found = {file.name: file_sha256(folder / file.name) for file in source.files}
    before = {} if record is None else record.files
    if changed := sorted(name for name, digest in found.items() if before.get(name, digest) != digest):
        assert record is not None
        since = "" if record.commit == commit else f" (commit {record.commit}; now it is {commit})"
        raise WeightsError(
            f"{source}: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not as fetched first{since}.",
            f"Results would change. Name the old commit with features.revision={record.commit}, or accept the new "
            f"files: delete {_place(source)}.",
        )
    if record is not None and record.commit != commit:
        warnings.warn(
            f"{source} has moved from commit {record.commit} to {commit}; its files are the same.",
            MovedBranchWarning,
            stacklevel=2,
        )
    new = _Record(commit=commit, files={**before, **found})
    if new != record:
        _write(source, new)


def recorded_commit(source: HubSource) -> str:
    """Return the commit that was fetched last; empty where that is not known.

    Raises:
        WeightsError: the record is damaged.
    """
    record = _read(source)
    return "" if record is None else record.commit


def recorded_digests(source: HubSource) -> dict[str, str]:
    """Name of a file -> its digest when it was fetched first; empty where that is not known.

    Raises:
        WeightsError: the record is damaged.
    """
    record = _read(source)
    return {} if record is None else record.files


def _place(source: HubSource) -> Path:
    name = f"{source.repository}@{source.revision}"
    return cache_folder() / "hub" / f"{quote(name, safe='@')}.json"


def _read(source: HubSource) -> _Record | None:
    place = _place(source)
    if not os.path.lexists(place):
        return None
    remedy = "Delete it; the files are then taken as they are."
    try:
        return _Record.model_validate(read_json(place, "record of a download", WeightsError))
    except WeightsError as error:
        raise WeightsError(error.message, remedy) from error
    except ValidationError as error:
        raise WeightsError(f"The record of a download {place} is damaged.", remedy) from error


def _write(source: HubSource, record: _Record) -> None:
    place = _place(source)
    temporary = place.with_name(f".{secrets.token_hex(8)}.json")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(record.model_dump(), indent=2) + "\n", encoding="utf-8")
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(place) from error
        raise InputError(
            f"{place} cannot be written: {error.strerror or error}.", "Choose another place with XDG_CACHE_HOME."
        ) from error
