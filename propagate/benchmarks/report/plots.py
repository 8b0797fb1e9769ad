"""Figures of the report and the sweep. `save_png` writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy import ndarray
from PIL import Image

from propagate.benchmarks.benchmark import Curve
from propagate.files.atomic import atomic_path

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is illegible on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
_DASHES = ("-", "--", ":", "-.")  # distinguish lines of the same color
_HATCHES = ("", "////", "....", "xxxx")
_DPI = 110
_WIDTH = 10.0  # inches, as the page
_CLIPS_PER_ROW = 32
_SPARSE = 40  # curves with fewer frames get markers
_GRAY, _LIGHT = "#5A5A5A", "#DDDDDD"


def method_color(position: int) -> str:
    """Return the #RRGGBB color of the method at this position, the same in all figures."""
    return COLORS[position % len(COLORS)]


def sequence_bars(values: Mapping[str, Mapping[str, float]], clips: Sequence[str], metric: str) -> Figure:
    """Draw grouped bars, one per method and clip (method -> clip -> share), in rows of up to 32 clips."""
    rows = max(1, math.ceil(len(clips) / _CLIPS_PER_ROW))
    per_row = math.ceil(len(clips) / rows)
    width = min(_WIDTH, max(5.0, 1.5 + 0.28 * per_row * max(1.0, math.sqrt(len(values)))))
    figure = Figure(figsize=(width, 3.6 * rows + 0.3), layout="constrained")
    bar = 0.84 / max(1, len(values))
    for row in range(rows):
        axes = figure.add_subplot(rows, 1, row + 1)
        shown = clips[row * per_row : (row + 1) * per_row]
        places = np.arange(len(shown))
        for number, by_clip in enumerate(values.values()):
            heights = [by_clip.get(clip, float("nan")) for clip in shown]
            hatch = _HATCHES[number // len(COLORS) % len(_HATCHES)]
            left = places + (number - (len(values) - 1) / 2) * bar
            axes.bar(left, heights, bar * 0.94, color=method_color(number), hatch=hatch, edgecolor="white", linewidth=0)
        _share_axis(axes)
        axes.set_ylabel(metric, parse_math=False)
        axes.set_xlim(-0.6, per_row - 0.4)
        slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(shown) > 6 else {}
        axes.set_xticks(places, shown, parse_math=False, **slanted)
    _legend(figure, list(values), bars=True)
    return figure


def frame_curves(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Draw one clip's values per frame as small multiples: a row per target, a column per metric, a line per method.

    Args:
        curves: method -> curves of this clip; a method without curves keeps its color and place in the legend.
    """
    present = [curve for of_method in curves.values() for curve in of_method]
    targets = list(dict.fromkeys(curve.target for curve in present))
    metrics = list(dict.fromkeys(metric for curve in present for metric in curve.values))
    figure = Figure(figsize=(_WIDTH, 0.75 + 1.55 * max(1, len(targets))), layout="constrained")
    grid = figure.subplots(max(1, len(targets)), max(1, len(metrics)), squeeze=False, sharex=True, sharey=True)
    for row, target in enumerate(targets):
        for column, metric in enumerate(metrics):
            axes: Axes = grid[row, column]
            for number, of_method in enumerate(curves.values()):
                for curve in of_method:
                    if curve.target == target and metric in curve.values:
                        _line(axes, number, curve.frames, curve.values[metric])
            _share_axis(axes)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            if row == 0:
                axes.set_title(metric, fontsize=10, parse_math=False)
            if row == len(targets) - 1:
                axes.set_xlabel("frame")
        name = f"object {target}" if target.isdigit() else target
        grid[row, 0].set_ylabel(name, parse_math=False)
    _legend(figure, list(curves), bars=False)
    return figure


def heat_map(
    values: Float64[ndarray, "rows columns"],
    row_names: Sequence[str],
    column_names: Sequence[str],
    axes_names: tuple[str, str],
    metric: str,
) -> Figure:
    """Draw a grid of shares with their per cent values and a frame around the best; NaN where a combination failed.

    `axes_names` are the settings of rows and columns, `row_names` and `column_names` their values.
    """
    rows, columns = values.shape
    figure = Figure(figsize=(max(4.2, 2.6 + 0.85 * columns), max(2.8, 1.5 + 0.55 * rows)), layout="constrained")
    axes = figure.add_subplot()
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    spread = max(high - low, 1e-9)
    image = axes.imshow(values, cmap="cividis", vmin=low, vmax=low + spread, aspect="auto")
    best = _best(values)
    for row in range(rows):
        for column in range(columns):
            value = float(values[row, column])
            if math.isnan(value):
                axes.text(column, row, "failed", ha="center", va="center", color=_GRAY, style="italic")
                continue
            color = "black" if (value - low) / spread > 0.55 else "white"
            weight = "bold" if (row, column) == best else "normal"
            axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=color, weight=weight)
    if best is not None:
        corner = (best[1] - 0.5, best[0] - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=COLORS[1], linewidth=3, clip_on=False))
    axes.set_xticks(range(columns), column_names, parse_math=False)
    axes.set_yticks(range(rows), row_names, parse_math=False)
    axes.set_ylabel(axes_names[0], parse_math=False)
    axes.set_xlabel(axes_names[1], parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=None))
    bar.outline.set_visible(False)
    bar.set_label(metric, parse_math=False)
    return figure


def value_line(values: Float64[ndarray, " n"], names: Sequence[str], axis_name: str, metric: str) -> Figure:
    """Draw shares along one setting, with their per cent values and a mark at the best; NaN where a value failed."""
    figure = Figure(figsize=(max(4.2, 1.6 + 0.85 * len(names)), 3.2), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(names))
    axes.plot(places, values, color=COLORS[0], marker="o", linewidth=1.8, clip_on=False)
    best = _best(values[None])
    for place, value in enumerate(values.tolist()):
        if math.isnan(value):
            axes.annotate(
                "failed", (place, 0.02), xycoords=("data", "axes fraction"), ha="center", color=_GRAY, style="italic"
            )
            continue
        is_best = best is not None and place == best[1]
        axes.annotate(
            f"{100 * value:.1f}",
            (place, value),
            (0, 7),
            textcoords="offset points",
            ha="center",
            weight="bold" if is_best else "normal",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
        if is_best:
            axes.plot(place, value, "o", color=COLORS[1], markersize=10, clip_on=False)
    axes.set_xticks(places, names, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.margins(y=0.2)
    axes.set_xlabel(axis_name, parse_math=False)
    axes.set_ylabel(metric, parse_math=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    draw_grid(axes)
    return figure


def save_png(figure: Figure, path: Path) -> Path:
    """Render a figure with Agg, write it atomically and return the path. The same figure gives the same bytes."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    # with few colors, a palette divides the size of the many files by four
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).quantize(255, Image.Quantize.MEDIANCUT)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="png", optimize=True)
    return path


def draw_grid(axes: Axes) -> None:
    """Draw horizontal grid lines behind the values, and no frame."""
    axes.grid(axis="y", color=_LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _best(values: Float64[ndarray, "rows columns"]) -> tuple[int, int] | None:
    if np.isnan(values).all():
        return None
    row, column = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return int(row), int(column)


def _line(axes: Axes, number: int, frames: Sequence[int], values: Float64[ndarray, " t"]) -> None:
    marker = "o" if len(frames) < _SPARSE else ""
    dashes = _DASHES[number // len(COLORS) % len(_DASHES)]
    axes.plot(frames, values, dashes, color=method_color(number), marker=marker, markersize=3, linewidth=1.4, alpha=0.9)


def _share_axis(axes: Axes) -> None:
    """Scale to 0 to 100 % with a margin at both ends."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    draw_grid(axes)
    axes.tick_params(labelsize=8, colors=_GRAY, length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(_LIGHT)


def _legend(figure: Figure, names: Sequence[str], *, bars: bool) -> None:
    handles: list[Line2D | Patch] = []
    for number in range(len(names)):
        color, style = method_color(number), number // len(COLORS) % len(_DASHES)
        if bars:
            handles.append(Patch(facecolor=color, hatch=_HATCHES[style], edgecolor="white"))
        else:
            handles.append(Line2D([], [], color=color, linestyle=_DASHES[style], linewidth=2.2))
    legend = figure.legend(
        handles, list(names), loc="outside upper left", ncols=min(len(names), 6), frameon=False, fontsize=9
    )
    text: Text
    for text in legend.get_texts():
        text.set_parse_math(False)
