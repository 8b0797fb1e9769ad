"""What a method is worth on a data set, and the files that say so."""

from __future__ import annotations

import csv
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from propagate.benchmarks.benchmark import Benchmark, Scores, Table
from propagate.files.atomic import atomic_path
from propagate.formats.output.run_record import json_text

SUMMARY = "summary.json"


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method, run and scored on one data set.

    Attributes:
        name: of the preset or baseline, or of the folder of results that were scored.
        settings: every resolved setting, dotted key -> value; empty for results that somebody else made.
        origins: dotted key -> where the value came from ("default", "preset compact", "--set"); the same keys.
        settings_hash: of the settings; empty for results that somebody else made.
        scores: what the results are worth.
        results: folder that holds one folder per clip.
        frames_per_second: of one process, over all finished clips; None where none was run.
        failed: clip -> the error that ended it.
        peak_memory: largest resident size of a process that ran it, in bytes; None where none was run.
    """

    name: str
    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    settings_hash: str
    scores: Scores
    results: Path
    frames_per_second: float | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    peak_memory: int | None = None


def unscored_clips(benchmark: Benchmark, result: MethodResult) -> tuple[str, ...]:
    """The clips that have no score: totals without them are not comparable with those of others."""
    return tuple(
        clip.name for clip in benchmark.clips if clip.name in result.failed or clip.name not in result.scores.clips
    )


def scored_share(benchmark: Benchmark, result: MethodResult) -> str:
    """ "29 of 30 clips" where some have no score; empty where all have one."""
    total = len(benchmark.clips)
    missing = len(unscored_clips(benchmark, result))
    return f"{total - missing} of {total} {'clip' if total == 1 else 'clips'}" if missing else ""


def memory_note(results: Sequence[MethodResult]) -> str:
    """What to know before peak memory is compared; empty where it was measured of one method at most."""
    if sum(result.peak_memory is not None for result in results) < 2:
        return ""
    return "Peak memory is that of the whole process: it includes what methods that ran earlier in it had loaded."


def write_tables(folder: Path, tables: Iterable[Table]) -> tuple[Path, ...]:
    """Write tables as CSV: UTF-8, lines end with a line feed. The same scores give the same bytes.

    Args:
        folder: is created where it does not exist.
        tables: names and cells.

    Returns:
        The files.

    Raises:
        InputError: one cannot be written.
    """
    paths = []
    for table in tables:
        path = folder / table.file
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(table.columns)
            rows.writerows(table.rows)
        paths.append(path)
    return tuple(paths)


def write_summary(
    folder: Path,
    benchmark: Benchmark,
    results: Sequence[MethodResult],
    versions: Mapping[str, str | None],
    command: str,
) -> Path:
    r"""Write `summary.json`: the data set, every method with its scores, settings, speed and failures, and versions.

    A number that does not exist (NaN) is null; bytes of names that are not UTF-8 are written as \xff.

    Raises:
        InputError: it cannot be written.
    """
    content = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "remarks": benchmark.remarks,
        "command": command,
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "versions": versions,
        "methods": [_method(result) for result in results],
        "published": [asdict(row) for row in benchmark.published],
    }
    path = folder / SUMMARY
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(_without_nan(content)), encoding="utf-8")
    return path


def _method(result: MethodResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "results": str(result.results),
        "totals": result.scores.totals,
        "clips": result.scores.clips,
        "remarks": result.scores.remarks,
        "problems": result.scores.problems,
        "failed": result.failed,
        "frames_per_second": result.frames_per_second,
        "peak_memory": result.peak_memory,
        "settings_hash": result.settings_hash,
        "settings": result.settings,
        "origins": result.origins,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
