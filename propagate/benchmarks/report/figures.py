"""The figures of a report, as files: one of all clips, and one of every clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.plots import frame_curves, save_png, sequence_bars
from propagate.benchmarks.report.summary import MethodResult

FOLDER = "plots"
_BARS = "sequences.png"


def clip_metric(results: Sequence[MethodResult]) -> str:
    """What clips are compared by: the first metric that clips have."""
    found = (metric for result in results for values in result.scores.clips.values() for metric in values)
    return next(found, "")


def clip_value(result: MethodResult, clip: str, metric: str) -> float:
    """A clip's share; NaN where there is none."""
    return float(result.scores.clips.get(clip, {}).get(metric, float("nan")))


def draw_bars(benchmark: Benchmark, results: Sequence[MethodResult], plots: Path) -> Path | None:
    """Draw the clips side by side; None where none was scored."""
    metric = clip_metric(results)
    if not metric:
        return None
    clips = [clip.name for clip in benchmark.clips]
    values = {result.name: {clip: clip_value(result, clip, metric) for clip in clips} for result in results}
    return save_png(sequence_bars(values, clips, metric), plots / _BARS)


def figure_paths(benchmark: Benchmark, results: Sequence[MethodResult], plots: Path) -> dict[str, Path]:
    """Clip -> the file of its figure, for every clip that was scored; no two clips share one."""
    scored = {curve.clip for result in results for curve in result.scores.curves}
    paths: dict[str, Path] = {}
    for clip in benchmark.clips:
        if clip.name in scored:
            path = plots / f"frames-{clip.name.replace('/', '-')}.png"
            if path in paths.values():
                path = plots / f"frames-{len(paths)}-{clip.name.replace('/', '-')}.png"
            paths[clip.name] = path
    return paths


def draw_curves(benchmark: Benchmark, results: Sequence[MethodResult], plots: Path) -> dict[str, Path]:
    """Draw the values of every frame; clip -> file."""
    paths = figure_paths(benchmark, results, plots)
    for clip, path in paths.items():
        curves = {result.name: [curve for curve in result.scores.curves if curve.clip == clip] for result in results}
        save_png(frame_curves(curves), path)
    return paths


def figure_files(benchmark: Benchmark, results: Sequence[MethodResult], plots: Path) -> tuple[Path, ...]:
    """The files that will be drawn."""
    bars = [plots / _BARS] if clip_metric(results) else []
    return (*bars, *figure_paths(benchmark, results, plots).values())
