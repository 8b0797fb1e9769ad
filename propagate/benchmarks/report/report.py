"""report.html: scores of the methods, their course over time and their worst frames, in one file."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment, StrictUndefined, Template
from numpy import ndarray
from PIL import Image

from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.plots import frame_curves, method_color, save_png, sequence_bars
from propagate.benchmarks.report.summary import (
    MethodResult,
    clip_metric,
    clip_value,
    memory_note,
    metric_names,
    scored_share,
)
from propagate.benchmarks.report.worst import worst_frames
from propagate.errors import PropagateError
from propagate.files.atomic import atomic_path
from propagate.formats import prepare_output

PAGE = "report.html"
WORST, APART = 5, 20
FIGURES = 60  # clips with a figure in the page, which hundreds would make unreadable
_PLOTS, _BARS = "plots", "sequences.png"
_PICTURE_WIDTH, _JPEG_QUALITY = 560, 80
_ABSENT = "–"


def report_files(benchmark: Benchmark, results: Sequence[MethodResult], folder: Path) -> tuple[Path, ...]:
    """Return the files that `write_report` writes, the page first."""
    bars = [folder / _PLOTS / _BARS] if clip_metric(results) else []
    return (folder / PAGE, *bars, *_figure_paths(benchmark, results, folder).values())


def write_report(
    benchmark: Benchmark,
    results: Sequence[MethodResult],
    folder: Path,
    versions: Mapping[str, str | None],
    command: str,
) -> tuple[Path, ...]:
    """Write `report.html` and its figures as `plots/*.png`, and return the files, the page first.

    The page is self-contained: pictures and style are embedded, it has no scripts and forbids the browser to load
    anything. The order of the methods sets their colors; a version of None is a distribution that is not installed.
    """
    prepare_output(folder, overwrite=True)
    plots = prepare_output(folder / _PLOTS, overwrite=True)
    metric, metrics, bars = clip_metric(results), metric_names(results), None
    if metric:
        clips = [clip.name for clip in benchmark.clips]
        values = {result.name: {clip: clip_value(result, clip, metric) for clip in clips} for result in results}
        bars = save_png(sequence_bars(values, clips, metric), plots / _BARS)
    figures = _figure_paths(benchmark, results, folder)
    for clip, path in figures.items():
        curves = {result.name: [curve for curve in result.scores.curves if curve.clip == clip] for result in results}
        save_png(frame_curves(curves), path)
    in_page = _lowest_clips(results, list(figures))
    text = _template().render(
        title=benchmark.title,
        name=benchmark.name,
        legend=[(name, "#{:02x}{:02x}{:02x}".format(*color)) for name, color in benchmark.difference_colors.items()],
        metrics=metrics,
        rows=_ranked_rows(benchmark, results),
        published=[
            {
                "method": row.method,
                "cells": [_percent(row.totals.get(metric)) for metric in metrics],
                "source": row.source,
                "command": row.command,
            }
            for row in benchmark.published
        ],
        remarks=_remarks(benchmark, results),
        methods=[
            {
                "name": result.name,
                "color": method_color(number),
                "failed": dict(result.failed),
                # a failed clip has no results; its problems would repeat the failure
                "problems": {
                    clip: sentences for clip, sentences in result.scores.problems.items() if clip not in result.failed
                },
                "worst": _worst(benchmark, result),
                "results": str(result.results),
                "hash": result.settings_hash,
                "settings": [
                    (key, _plain(value), result.origins.get(key, "")) for key, value in result.settings.items()
                ],
                "table": _clip_table(benchmark, result),
            }
            for number, result in enumerate(results)
        ],
        clip_metric=metric,
        clips=_compared_clips(benchmark, results),
        bars=_inline_png(bars) if bars else None,
        figures=[(clip, _inline_png(path)) for clip, path in figures.items() if clip in in_page],
        left_out=len(figures) - len(in_page),
        differing=_differing_settings(results),
        rule={"count": WORST, "apart": APART},
        versions={name: version or "not installed" for name, version in versions.items()},
        command=command,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        absent=_ABSENT,
        memory_note=memory_note(results),
    )
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are not UTF-8
    return report_files(benchmark, results, folder)


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _percent
    return environment.from_string(
        (resources.files("propagate.benchmarks.report") / "report.html.j2").read_text("utf-8")
    )


def _figure_paths(benchmark: Benchmark, results: Sequence[MethodResult], folder: Path) -> dict[str, Path]:
    """Return clip -> the path of its figure, all different, for each clip with curves."""
    scored = {curve.clip for result in results for curve in result.scores.curves}
    paths: dict[str, Path] = {}
    for clip in (clip.name for clip in benchmark.clips if clip.name in scored):
        name = f"{clip.replace('/', '-')}.png"
        path = folder / _PLOTS / f"frames-{name}"
        paths[clip] = path if path not in paths.values() else path.with_name(f"frames-{len(paths)}-{name}")
    return paths


def _percent(share: float | None) -> str:
    return _ABSENT if share is None or math.isnan(share) else f"{100 * share:.1f}"


def _ranked_rows(benchmark: Benchmark, results: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """Sort methods by score; methods that lack clips, possibly difficult ones, come last."""
    metrics = metric_names(results)

    def rank(numbered: tuple[int, MethodResult]) -> tuple[bool, float]:
        value = numbered[1].scores.totals.get(metrics[0], float("nan")) if metrics else float("nan")
        return scored_share(benchmark, numbered[1]) != "", math.inf if math.isnan(value) else -value

    return [
        {
            "name": result.name,
            "color": method_color(number),
            "share": scored_share(benchmark, result),
            "cells": [_percent(result.scores.totals.get(metric)) for metric in metrics],
            "speed": "" if result.frames_per_second is None else f"{result.frames_per_second:.3g}",
            "memory": "" if result.peak_memory is None else f"{result.peak_memory / 2**30:.2f}",
        }
        for number, result in sorted(enumerate(results), key=rank)
    ]


def _remarks(benchmark: Benchmark, results: Sequence[MethodResult]) -> list[tuple[str, str]]:
    """Return (methods, sentence) pairs; "" for a sentence about all methods."""
    by_sentence: dict[str, list[str]] = {sentence: [] for sentence in benchmark.remarks}
    for result in results:
        for sentence in result.scores.remarks:
            if sentence not in benchmark.remarks:
                by_sentence.setdefault(sentence, []).append(result.name)
    return [
        ("" if len(names) in (0, len(results)) else ", ".join(names), sentence)
        for sentence, names in by_sentence.items()
    ]


def _compared_clips(benchmark: Benchmark, results: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """Return a row per clip with a (text, is best) cell per method."""
    metric = clip_metric(results)
    rows = []
    for clip in benchmark.clips:
        values = [clip_value(result, clip.name, metric) for result in results]
        best = max((value for value in values if not math.isnan(value)), default=math.nan)
        cells = [
            ("failed" if clip.name in result.failed else _percent(value), len(results) > 1 and value == best)
            for result, value in zip(results, values, strict=True)
        ]
        rows.append({"name": clip.name, "frames": len(clip.pictures), "cells": cells})
    return rows


def _clip_table(benchmark: Benchmark, result: MethodResult) -> dict[str, Any]:
    columns = list(dict.fromkeys(metric for values in result.scores.clips.values() for metric in values))
    rows = [
        (clip.name, [_percent(clip_value(result, clip.name, metric)) for metric in columns]) for clip in benchmark.clips
    ]
    return {"columns": columns, "rows": rows}


def _lowest_clips(results: Sequence[MethodResult], clips: Sequence[str]) -> set[str]:
    """Select the clips with a figure in the page: those with the lowest score of any method."""
    metric = clip_metric(results)

    def lowest(clip: str) -> float:
        values = [clip_value(result, clip, metric) for result in results]
        return min((value for value in values if not math.isnan(value)), default=-1.0)

    return set(sorted(clips, key=lowest)[:FIGURES])


def _worst(benchmark: Benchmark, result: MethodResult) -> list[dict[str, Any]]:
    clips = {clip.name: clip for clip in benchmark.clips}
    found = []
    for frame in worst_frames(result.scores.curves, WORST, APART):
        pictures, problem = list[str](), ""
        try:
            pictures = [_inline_jpeg(p) for p in benchmark.compare(clips[frame.clip], result.results, frame.frame)]
        except PropagateError as error:
            problem = error.message
        found.append({"frame": frame, "pictures": pictures, "problem": problem})
    return found


def _differing_settings(results: Sequence[MethodResult]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (key, (value, origin) per method) of the settings that differ between methods."""
    rows = []
    for key in dict.fromkeys(key for result in results for key in result.settings):
        cells = [
            (_plain(result.settings[key]), result.origins.get(key, "")) if key in result.settings else (_ABSENT, "")
            for result in results
        ]
        if len({value for value, _ in cells}) > 1:
            rows.append((key, cells))
    return rows


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _inline_png(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _inline_jpeg(pixels: UInt8[ndarray, "h w 3"]) -> str:
    picture = Image.fromarray(pixels)
    if picture.width > _PICTURE_WIDTH:
        height = max(1, round(picture.height * _PICTURE_WIDTH / picture.width))
        picture = picture.resize((_PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
