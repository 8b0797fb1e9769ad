"""Files of the Hugging Face hub: cached, downloaded, verified, and recorded at the first download.

A branch such as `main` moves, and most files have no published digest. Later downloads must match the record.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import warnings
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from propagate.errors import PropagateWarning, WeightsError
from propagate.files.documents import read_json
from propagate.weights import download
from propagate.weights.download import DownloadError, cache_folder, file_sha256
from propagate.weights.registry import HubSource, WeightFile

_COMMIT = re.compile("[0-9a-f]{40}")


class MovedBranchWarning(PropagateWarning):
    """A branch has moved since the first download; its files are the same."""


class Record(BaseModel):
    """Commit and digests of the first download; empty before it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["propagate hub record 1"] = "propagate hub record 1"
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


def cached_files(source: HubSource) -> list[Path] | None:
    """Return the paths of a source's files in the cache, or None where one is missing or has the wrong size."""
    paths = [path for file in source.files if (path := _cached(source, file)) is not None]
    return paths if len(paths) == len(source.files) else None


def download_files(source: HubSource) -> list[Path]:
    """Download the missing files of a source, all of one commit, and return all paths; errors as `download`."""
    paths = list[Path]()
    for file in source.files:
        paths.append(_download(source, file))
        # a branch may move between two files: take the others from the commit of the first
        source = replace(source, revision=snapshot(source, paths).name)
    return paths


def snapshot(source: HubSource, paths: list[Path]) -> Path:
    """Return the folder of the files' repository in the cache, named after the commit."""
    return paths[0].parents[len(PurePosixPath(source.files[0].name).parts) - 1]


def file_problem(path: Path, file: WeightFile) -> str:
    """Return what is wrong with a file, or an empty string. Reads the whole file if the digest is known."""
    if not path.is_file():
        return "is missing"
    if has_wrong_size(path, file):
        return f"has {path.stat().st_size} bytes, not {file.size}"
    if file.sha256 is not None and (found := file_sha256(path)) != file.sha256:
        return f"has the SHA-256 {found}, not {file.sha256}"
    return ""


def has_wrong_size(path: Path, file: WeightFile) -> bool:
    """Return whether the size differs from the known one."""
    return file.size is not None and path.stat().st_size != file.size


def _cached(source: HubSource, file: WeightFile, *, any_size: bool = False) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repository, file.name, revision=source.revision)
    return Path(found) if isinstance(found, str) and (any_size or not has_wrong_size(Path(found), file)) else None


def _download(source: HubSource, file: WeightFile) -> Path:
    from huggingface_hub import constants, hf_hub_download

    if (known := _cached(source, file)) is not None:
        return known
    has_wrong_file = _cached(source, file, any_size=True) is not None
    try:
        found = hf_hub_download(source.repository, file.name, revision=source.revision, force_download=has_wrong_file)
    except Exception as error:  # a dozen classes of three libraries; each means: try the next source
        if download.is_disk_full(error):
            raise download.disk_full(Path(constants.HF_HUB_CACHE)) from error
        if download.is_unknown_host(error):
            raise DownloadError("the hub's host name cannot be resolved; is there a network?") from error
        text = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"{file.name}: {text if len(text) <= 200 else f'{text[:200]} ...'}") from error
    path = Path(found)
    if problem := file_problem(path, file):
        # remove the snapshot's link and its blob, or the cache would return the wrong file next time
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)
        raise DownloadError(f"{file.name}: {problem}")
    return path


def check_record(source: HubSource, folder: Path, *, is_new: bool) -> None:
    """Compare a source's files with their record, and record new ones; raise a WeightsError if they differ.

    Cached files (not `is_new`) of the recorded commit are not read again; `verify` does that.
    """
    commit = folder.name
    if not _COMMIT.fullmatch(commit):
        return
    record = read_record(source)
    if not is_new and (record is None or record.commit == commit):
        return
    found = {file.name: file_sha256(folder / file.name) for file in source.files}
    before = {} if record is None else record.files
    changed = sorted(name for name, digest in found.items() if before.get(name, digest) != digest)
    if record is not None and changed:
        since = "" if record.commit == commit else f" (commit {record.commit}; now it is {commit})"
        raise WeightsError(
            f"{source}: {', '.join(changed)} {'differs' if len(changed) == 1 else 'differ'} from the first "
            f"download{since}.",
            f"Results would change. Name the old commit with features.revision={record.commit}, or accept the new "
            f"files: delete {_record_file(source)}.",
        )
    if record is not None and record.commit != commit:
        warnings.warn(
            f"{source} has moved from commit {record.commit} to {commit}; its files are the same.",
            MovedBranchWarning,
            stacklevel=2,
        )
    new = Record(commit=commit, files={**before, **found})
    if new != record:
        _write_record(source, new)


def read_record(source: HubSource) -> Record | None:
    """Read the record of the first download, if any; raise a WeightsError for a damaged one."""
    path = _record_file(source)
    if not os.path.lexists(path):
        return None
    remedy = "Delete it to accept the current files."
    try:
        return Record.model_validate(read_json(path, "record of a download", WeightsError))
    except WeightsError as error:
        raise WeightsError(error.message, remedy) from error
    except ValidationError as error:
        raise WeightsError(f"The record of a download {path} is damaged.", remedy) from error


def _record_file(source: HubSource) -> Path:
    name = f"{source.repository}@{source.revision}"
    return cache_folder() / "hub" / f"{quote(name, safe='@')}.json"


def _write_record(source: HubSource, record: Record) -> None:
    path = _record_file(source)
    temporary = path.with_name(f".{secrets.token_hex(8)}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(record.model_dump(), indent=2) + "\n", encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise download.write_error(path, error) from error
