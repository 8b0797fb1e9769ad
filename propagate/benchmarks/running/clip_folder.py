"""The folder of one clip's results: it appears whole, with a record of how it was made, or not at all.

While a clip is run its files lie in a hidden folder beside; the record is the last file written there, and then the
folder gets the clip's name. So whatever has that name is finished, and what a killed run leaves is known by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from propagate.benchmarks.benchmark import Benchmark, Clip
from propagate.benchmarks.running.methods import Method
from propagate.benchmarks.running.records import RECORD, ClipRecord, ResultRecord
from propagate.errors import InputError
from propagate.files.atomic import write_error
from propagate.formats import write_run_record
from propagate.types import Mask


@dataclass(frozen=True)
class Run:
    """How a clip was run.

    Attributes:
        frames: how many.
        seconds: for all of them, without building the extractor.
        peak_memory: largest resident size of the process meanwhile, in bytes; None where the system does not say.
        threads: of torch, of OpenCV and of the compiled loops, which take as many as torch.
        notes: warnings of this package on the way.
        details: those of other packages.
    """

    frames: int
    seconds: float
    peak_memory: int | None
    threads: int
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def input_hash(benchmark: Benchmark, clip: Clip) -> str:
    """SHA-256 over the content of a clip's pictures and of its given label, as the protocol shows it.

    Raises:
        InputError: a picture cannot be read.
    """
    digest = hashlib.sha256()
    for picture in clip.pictures:
        try:
            with picture.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"{picture} cannot be read ({error.strerror}).", "Check the data set's folder.") from error
    label = benchmark.label(clip)
    if isinstance(label, Mask):
        digest.update(repr(label.size).encode() + label.ids.tobytes())
    else:
        digest.update(repr(label.names).encode() + label.positions.tobytes())
    return digest.hexdigest()


@contextmanager
def clip_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into that becomes `folder` when the block ends well, and goes where it fails.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
        temporary.chmod(0o755)  # mkdtemp's are for one user alone
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a run that was killed left of this clip."""
    for left in folder.parent.glob(f"{_escaped(_prefix(folder))}*"):
        shutil.rmtree(left, ignore_errors=True)


def write_record(folder: Path, method: Method, benchmark: Benchmark, clip: Clip, run: Run) -> None:
    """Write `run.json`: settings, their hash, the input's, versions, speed, and every file with its size.

    Raises:
        InputError: it cannot be written.
    """
    record = {
        "status": "finished",
        "benchmark": benchmark.name,
        "clip": clip.name,
        "method": method.name,
        "settings": method.settings,
        "origins": method.origins,
        "settings_hash": method.settings_hash,
        "input_hash": input_hash(benchmark, clip),
        "frames": run.frames,
        "seconds": round(run.seconds, 4),
        "peak_memory": run.peak_memory,
        "threads": run.threads,
        "notes": (*run.notes, *run.details),
        "versions": method.versions,
        "files": file_sizes(folder),
        "digests": {name: _digest(folder / name) for name in file_sizes(folder)},
    }
    write_run_record(folder, record)


def is_whole(folder: Path, record: ResultRecord) -> bool:
    """Whether every file of the record is still there, unchanged."""
    found = file_sizes(folder)
    if any(found.get(name) != size for name, size in record.files.items()):
        return False
    try:
        return all(_digest(folder / name) == digest for name, digest in record.digests.items())
    except OSError:
        return False


def differences(record: ClipRecord, method: Method, benchmark: Benchmark, clip: Clip) -> list[str]:
    """What a finished clip was made with that is another now: "key: then -> now" each; empty where nothing is.

    Raises:
        InputError: the clip's pictures cannot be read.
    """
    found = []
    if record.benchmark != benchmark.name:
        found.append(f"data set: {record.benchmark} -> {benchmark.name}")
    if record.settings_hash != method.settings_hash:
        then, now = record.settings, method.settings
        for key in sorted({*then, *now}):
            before, after = (_text(values[key]) if key in values else "not set" for values in (then, now))
            if before != after:
                found.append(f"{key}: {before} -> {after}")
        if not found:
            found.append(f"settings: {record.settings_hash[:12]} -> {method.settings_hash[:12]}")
    if record.input_hash != (new := input_hash(benchmark, clip)):
        found.append(f"pictures or first label of {clip.name}: {record.input_hash[:12]} -> {new[:12]}")
    return found


def foreign_files(folder: Path, record: ResultRecord) -> list[str]:
    """Files, links and devices in a clip's folder that the record does not name."""
    return sorted(set(file_sizes(folder)) - {*record.files, RECORD})


def remove_clip(folder: Path, record: ResultRecord) -> None:
    """Remove the files that the record names, the record itself, and the folders that are empty then.

    The record goes last: a removal that is interrupted can be gone on with.
    """
    for name in (*record.files, RECORD):
        (folder / name).unlink(missing_ok=True)
    for inside in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            inside.rmdir()
    with suppress(OSError):
        folder.rmdir()


def file_sizes(folder: Path) -> dict[str, int]:
    """Path below the folder -> size in bytes of everything in it that is no folder; -1 for links, pipes and devices."""
    found = {}
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                size = status.st_size if stat.S_ISREG(status.st_mode) else -1
                found[path.relative_to(folder).as_posix()] = size
    return dict(sorted(found.items()))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prefix(folder: Path) -> str:
    return f".{folder.name}.unfinished."


def _escaped(text: str) -> str:
    """For a glob, where brackets mean something."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)


def _text(value: Any) -> str:
    """As it stands in the record; a string without quotes."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
