"""Scores of a method on a data set, the CSV tables and `summary.json`."""

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
    """One method, run and scored on one data set."""

    name: str  # preset, baseline, or folder of existing results
    settings: Mapping[str, Any]  # dotted key -> value of all resolved settings; empty for existing results
    origins: Mapping[str, str]  # dotted key -> origin of the value ("default", "preset compact", "--set")
    settings_hash: str  # hash of the settings; empty for existing results
    scores: Scores  # scores of the results
    results: Path  # folder with one folder per clip
    frames_per_second: float | None = None  # speed of one process over all finished clips; None where none was run
    failed: Mapping[str, str] = field(default_factory=dict)  # clip -> error
    peak_memory: int | None = None  # largest resident size of a process, in bytes; None where none was run


def metric_names(results: Sequence[MethodResult]) -> list[str]:
    """Return the metrics of all totals, the ranking one first."""
    return list(dict.fromkeys(metric for result in results for metric in result.scores.totals))


def clip_metric(results: Sequence[MethodResult]) -> str:
    """Return the metric that compares clips, the first one that clips have; "" where no clip was scored."""
    found = (metric for result in results for values in result.scores.clips.values() for metric in values)
    return next(found, "")


def clip_value(result: MethodResult, clip: str, metric: str) -> float:
    """Return a clip's share; NaN where it is missing."""
    return float(result.scores.clips.get(clip, {}).get(metric, math.nan))


def unscored_clips(benchmark: Benchmark, result: MethodResult) -> tuple[str, ...]:
    """Return the clips without a score: totals without them are not comparable with those of others."""
    return tuple(
        clip.name for clip in benchmark.clips if clip.name in result.failed or clip.name not in result.scores.clips
    )


def scored_share(benchmark: Benchmark, result: MethodResult) -> str:
    """Return "29 of 30 clips" where some have no score; "" where all have one."""
    total = len(benchmark.clips)
    missing = len(unscored_clips(benchmark, result))
    return f"{total - missing} of {total} {'clip' if total == 1 else 'clips'}" if missing else ""


def memory_note(results: Sequence[MethodResult]) -> str:
    """Return a caution for comparing peak memory of several methods; "" for fewer than two."""
    if sum(result.peak_memory is not None for result in results) < 2:
        return ""
    return "Peak memory is that of the whole process: it includes what methods that ran earlier in it had loaded."


def write_tables(folder: Path, tables: Iterable[Table]) -> tuple[Path, ...]:
    """Write tables as CSV (UTF-8, line feeds) and return the files. The same scores give the same bytes."""
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
    r"""Write `summary.json`: the data set, each method with scores, settings, speed and failures, and versions.

    NaN becomes null; bytes of names that are not UTF-8 are written as \xff.
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
