"""Validated records of an evaluation: `.evaluation.json` of its folder, `run.json` of each clip.

They list the files that may be removed, and anybody can edit them. This module alone reads them: the whole record is
valid or it is an error, and each path is a plain one inside the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from propagate.errors import InputError, UsageError
from propagate.files.documents import read_json
from propagate.files.names import is_plain_name

MANIFEST, RECORD = ".evaluation.json", "run.json"
_UNTOUCHED = "Nothing was removed. Choose another --output (-o)."


def _check_name(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError(f"{name[:80]!r} is not a plain name")
    return name


def _check_path(path: str) -> str:
    if not all(is_plain_name(part) for part in path.split("/")) or path == MANIFEST:
        raise ValueError(f"{path[:80]!r} is not a plain name inside the folder")
    return path


_Name = Annotated[str, AfterValidator(_check_name)]
_InsidePath = Annotated[str, AfterValidator(_check_path)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Manifest(_Record):
    """The content of an evaluation's folder."""

    methods: list[_Name] = []  # names of all methods
    at_top: _Name | None = None  # method whose clips lie in the folder itself; None where each method has a folder
    files: list[_InsidePath] = []  # scores and reports, as paths below the folder
    clips: list[_InsidePath] = []  # folders of clips, as paths below the folder

    @model_validator(mode="after")
    def _check_together(self) -> Manifest:
        if self.at_top is not None and self.at_top not in self.methods:
            raise ValueError(f"{self.at_top!r} is not one of the methods")
        clips = set(self.clips)
        for file in self.files:
            if any(parent.as_posix() in clips for parent in PurePosixPath(file).parents):
                raise ValueError(f"{file!r} lies in the folder of a clip, which has a record of its own")
        return self


class ResultRecord(_Record):
    """The files of one result, with hashes of its settings and input."""

    settings_hash: str  # hash of all settings
    input_hash: str  # hash of the pictures and the given label
    files: dict[_InsidePath, Annotated[int, Field(ge=0)]]  # path below the folder -> size in bytes
    digests: dict[_InsidePath, str] = {}  # path below the folder -> SHA-256; empty in records of older versions


class ClipRecord(ResultRecord):
    """The record of a clip; see `clip_folder.write_record`."""

    benchmark: str
    clip: str
    method: str
    settings: dict[str, Any]
    frames: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(ge=0)]
    peak_memory: Annotated[int, Field(ge=0)] | None
    threads: Annotated[int, Field(ge=1)]
    versions: dict[str, str | None] = {}


RecordT = TypeVar("RecordT", bound=_Record)


def read_manifest(folder: Path) -> Manifest | None:
    """Read and validate the manifest of a folder; None where it has none."""
    path = folder / MANIFEST
    return _read(path, Manifest) if os.path.lexists(path) else None


def read_record(folder: Path, kind: type[RecordT]) -> RecordT | None:
    """Read the record of a finished result; None where its folder does not exist.

    Raises:
        UsageError: the folder has no record.
        InputError: the folder is a link, or its record is damaged or names a path outside.
    """
    if not os.path.lexists(folder):
        return None
    remedy = "Move it away, or choose another --output (-o)."
    if folder.is_symlink():
        raise InputError(f"{folder} is a link that an evaluation did not make.", remedy)
    if not os.path.lexists(folder / RECORD):
        raise UsageError(f"{folder} holds something that an evaluation did not write.", remedy)
    return _read(folder / RECORD, kind)


def check_inside(folder: Path, paths: Iterable[str]) -> None:
    """Raise an InputError where files of a record lead out of its folder through a link, or are folders."""
    for path in paths:
        place = folder
        for part in Path(path).parts[:-1]:
            place /= part
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise InputError(f"{place} is not a folder that an evaluation made.", _UNTOUCHED)
        file = folder / path
        if file.is_dir() and not file.is_symlink():
            raise InputError(f"{file} is a folder, where an evaluation wrote a file.", _UNTOUCHED)


def _read(path: Path, kind: type[RecordT]) -> RecordT:
    try:
        if path.is_symlink():
            raise InputError("it is a link.")
        return kind.model_validate(read_json(path))
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"]))[:80]
        fault = first["msg"].removeprefix("Value error, ")
        cause = f"{place}: {fault}" if place else fault
        raise InputError(f"{path} is damaged or was edited ({cause}).", _UNTOUCHED) from problem
    except InputError as problem:
        raise InputError(f"{path} is damaged or was edited: {problem.message}", _UNTOUCHED) from problem
