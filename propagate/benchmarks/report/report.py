"""report.html: what the methods are worth, how they do over time and where they fail, in one file."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment, StrictUndefined, Template
from numpy import ndarray
from PIL import Image

from propagate.benchmarks.benchmark import Benchmark, Published
from propagate.benchmarks.report.figures import FOLDER, clip_metric, clip_value, draw_bars, draw_curves, figure_files
from propagate.benchmarks.report.plots import method_color
from propagate.benchmarks.report.summary import MethodResult, memory_note, scored_share
from propagate.benchmarks.report.worst import worst_frames
from propagate.errors import PropagateError
from propagate.files.atomic import atomic_path
from propagate.formats import prepare_output

PAGE = "report.html"
WORST, APART = 5, 20
FIGURES = 60  # clips whose figure is in the page; a data set of hundreds would make it unreadable
_PICTURE_WIDTH, _JPEG_QUALITY = 560, 80
_ABSENT = "–"


@dataclass(frozen=True)
class _Row:
    """A method in the main table; cells are texts, in the order of the columns."""

    name: str
    color: str
    share: str  # "29 of 30 clips" where some are missing: its totals are not comparable with those of the others
    cells: tuple[str, ...]
    speed: str
    memory: str


def report_files(benchmark: Benchmark, results: Sequence[MethodResult], folder: Path) -> tuple[Path, ...]:
    """The files that `write_report` writes: the page first."""
    return (folder / PAGE, *figure_files(benchmark, results, folder / FOLDER))


def write_report(
    benchmark: Benchmark,
    results: Sequence[MethodResult],
    folder: Path,
    versions: Mapping[str, str | None],
    command: str,
) -> tuple[Path, ...]:
    """Write `report.html` and its figures as `plots/*.png`.

    The page needs nothing beside itself: pictures and style are in it, it has no scripts, and it forbids the browser
    to load anything. It holds no number that is not in `results` and `benchmark`.

    Args:
        benchmark: the data set; gives the clips, the published rows and the pictures of single frames.
        results: at least one method, in the order of their colors.
        folder: is created where it does not exist; older files of the same names are replaced.
        versions: distribution -> version, None where it is missing.
        command: the command line that made the results.

    Returns:
        The files: the page first.

    Raises:
        InputError: a file cannot be written.
    """
    prepare_output(folder, overwrite=True)
    plots = prepare_output(folder / FOLDER, overwrite=True)
    bars = draw_bars(benchmark, results, plots)
    figures = draw_curves(benchmark, results, plots)
    shown = _lowest_clips(results, list(figures))
    text = _template().render(
        title=benchmark.title,
        name=benchmark.name,
        legend=_legend(benchmark),
        metrics=_metrics(results),
        rows=_ranked_rows(benchmark, results),
        published=[_published_row(row, _metrics(results)) for row in benchmark.published],
        remarks=_remarks(benchmark, results),
        methods=[
            {
                "name": result.name,
                "color": method_color(number),
                "failed": dict(result.failed),
                # of a clip that failed there are no results, which need not be told twice
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
        clip_metric=clip_metric(results),
        clips=_compared_clips(benchmark, results),
        bars=_inline_png(bars) if bars else None,
        figures=[(clip, _inline_png(path)) for clip, path in figures.items() if clip in shown],
        left_out=len(figures) - len(shown),
        differing=_differing_settings(results),
        rule={"count": WORST, "apart": APART},
        versions={name: version or "not installed" for name, version in versions.items()},
        command=command,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        absent=_ABSENT,
        memory_note=memory_note(results),
    )
    page = folder / PAGE
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are not UTF-8
    return (page, *([bars] if bars else []), *figures.values())


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _percent
    return environment.from_string(
        (resources.files("propagate.benchmarks.report") / "report.html.j2").read_text("utf-8")
    )


def _legend(benchmark: Benchmark) -> list[tuple[str, str]]:
    """(meaning, #rrggbb) of the colors in the third picture."""
    return [(name, "#{:02x}{:02x}{:02x}".format(*color)) for name, color in benchmark.difference_colors.items()]


def _percent(share: float | None) -> str:
    return _ABSENT if share is None or math.isnan(share) else f"{100 * share:.1f}"


def _metrics(results: Sequence[MethodResult]) -> list[str]:
    """The columns: the totals of all methods, the ranking one first."""
    return list(dict.fromkeys(metric for result in results for metric in result.scores.totals))


def _ranked_rows(benchmark: Benchmark, results: Sequence[MethodResult]) -> list[_Row]:
    """The best first; those that lack clips, which may be the difficult ones, after all others."""
    metrics = _metrics(results)

    def rank(numbered: tuple[int, MethodResult]) -> tuple[bool, float]:
        value = numbered[1].scores.totals.get(metrics[0], float("nan")) if metrics else float("nan")
        return scored_share(benchmark, numbered[1]) != "", math.inf if math.isnan(value) else -value

    return [
        _Row(
            result.name,
            method_color(number),
            scored_share(benchmark, result),
            tuple(_percent(result.scores.totals.get(metric)) for metric in metrics),
            "" if result.frames_per_second is None else f"{result.frames_per_second:.3g}",
            "" if result.peak_memory is None else f"{result.peak_memory / 2**30:.2f}",
        )
        for number, result in sorted(enumerate(results), key=rank)
    ]


def _published_row(row: Published, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "method": row.method,
        "cells": [_percent(row.totals.get(metric)) for metric in metrics],
        "source": row.source,
        "command": row.command,
    }


def _remarks(benchmark: Benchmark, results: Sequence[MethodResult]) -> list[tuple[str, str]]:
    """(methods it is about, sentence); empty methods where it is about all."""
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
    """A row per clip with one cell per method: (text, whether it is the best of the row)."""
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
    """Every metric of every clip of one method."""
    columns = list(dict.fromkeys(metric for values in result.scores.clips.values() for metric in values))
    rows = [
        (clip.name, [_percent(clip_value(result, clip.name, metric)) for metric in columns]) for clip in benchmark.clips
    ]
    return {"columns": columns, "rows": rows}


def _lowest_clips(results: Sequence[MethodResult], clips: Sequence[str]) -> set[str]:
    """The clips whose figures are in the page: those in which some method does worst, if there are too many."""
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
    """(key, (value, origin) per method) of the settings in which the methods differ."""
    keys = dict.fromkeys(key for result in results for key in result.settings)
    rows = []
    for key in keys:
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
