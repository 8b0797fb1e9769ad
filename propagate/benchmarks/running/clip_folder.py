"""The folder of one clip's results, which appears complete with its record or not at all.

While a clip runs, its files lie in a hidden folder beside; the record is written last, and then the hidden folder gets
the clip's name. So a folder of that name is finished, and the hidden folder of a killed run is known by its prefix.
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
from glob import escape
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
    """Measurements and warnings of a clip's run."""

    frames: int  # number of frames
    seconds: float  # for all frames, without building the extractor
    peak_memory: int | None  # largest resident size of the process, in bytes; None where the system does not report it
    threads: int  # of torch, OpenCV and the compiled loops
    notes: tuple[str, ...] = ()  # warnings of this package
    details: tuple[str, ...] = ()  # warnings of other packages


def input_hash(benchmark: Benchmark, clip: Clip) -> str:
    """Return the SHA-256 of a clip's pictures and of its given label."""
    digest = hashlib.sha256()
    for picture in clip.pictures:
        try:
            digest.update(_digest(picture).digest())
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
    """Yield an empty folder that becomes `folder` when the block succeeds, and is removed when it fails."""
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
    """Remove what a killed run left of this clip."""
    for left in folder.parent.glob(f"{escape(_prefix(folder))}*"):
        shutil.rmtree(left, ignore_errors=True)


def write_record(folder: Path, method: Method, benchmark: Benchmark, clip: Clip, run: Run) -> None:
    """Write `run.json`: settings, versions, speed, hashes, and each file with its size."""
    files = file_sizes(folder)
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
        "files": files,
        "digests": {name: _digest(folder / name).hexdigest() for name in files},
    }
    write_run_record(folder, record)


def is_complete(folder: Path, record: ResultRecord) -> bool:
    """Whether all files of the record exist unchanged."""
    found = file_sizes(folder)
    if any(found.get(name) != size for name, size in record.files.items()):
        return False
    try:
        return all(_digest(folder / name).hexdigest() == digest for name, digest in record.digests.items())
    except OSError:
        return False


def differences(record: ClipRecord, method: Method, benchmark: Benchmark, clip: Clip) -> list[str]:
    """Compare a finished clip with a new run: "key: then -> now" for each difference."""
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
    """Return files, links and devices in a clip's folder that are not in the record."""
    return sorted(set(file_sizes(folder)) - {*record.files, RECORD})


def remove_clip(folder: Path, record: ResultRecord) -> None:
    """Remove the files of the record, then the record itself, then empty folders.

    Because the record goes last, an interrupted removal can be continued.
    """
    for name in (*record.files, RECORD):
        (folder / name).unlink(missing_ok=True)
    for inside in (*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder):
        with suppress(OSError):
            inside.rmdir()


def file_sizes(folder: Path) -> dict[str, int]:
    """Return path below the folder -> size in bytes of all that is not a folder; -1 for links, pipes and devices."""
    found = {}
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                size = status.st_size if stat.S_ISREG(status.st_mode) else -1
                found[path.relative_to(folder).as_posix()] = size
    return dict(sorted(found.items()))


def _digest(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _prefix(folder: Path) -> str:
    return f".{folder.name}.unfinished."


def _text(value: Any) -> str:
    """Return a value as it stands in the record, but strings without quotes."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
