"""Grid search: run and score one preset with all combinations of one or two varied settings.

DIFT (Tang et al., NeurIPS 2023) selects timestep and block of a diffusion model this way.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from propagate.benchmarks.benchmark import Benchmark, Table
from propagate.benchmarks.report.plots import heat_map, value_line
from propagate.benchmarks.report.summary import MethodResult, metric_names, unscored_clips
from propagate.benchmarks.running.methods import Method, load_methods
from propagate.benchmarks.running.runner import Observer, Outcome, Task, run
from propagate.errors import PropagateError, UsageError
from propagate.files.documents import parse_yaml

TABLE, FIGURE = "sweep.csv", "sweep.png"


@dataclass(frozen=True)
class Axis:
    """A varied setting."""

    key: str  # dotted key
    values: tuple[str, ...]  # values as text, in the given order
    overrides: tuple[str, ...]  # `key=value` of each value


@dataclass(frozen=True)
class Grid:
    """All combinations of the values of one or two axes, of which the first varies slowest, and the fixed overrides."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]

    @property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """All combinations, each as the indices of its values on the axes."""
        return tuple(itertools.product(*(range(len(axis.values)) for axis in self.axes)))

    def name(self, cell: Sequence[int]) -> str:
        """Name the folder of a combination: `features.timestep=21,features.block=1`, special characters as %2F."""
        pairs = zip(self.axes, self.values(cell), strict=True)
        return ",".join(f"{axis.key}={quote(value, safe='[], ')}" for axis, value in pairs)

    def values(self, cell: Sequence[int]) -> list[str]:
        """Return the values of a combination as text."""
        return [axis.values[index] for axis, index in zip(self.axes, cell, strict=True)]


def read_grid(assignments: Iterable[str]) -> Grid:
    """Parse the grid of `key=v1,v2,...`.

    Values are separated as in a YAML list, so commas within a value need brackets or quotes: `a.b=[1, 2],[3]` are two
    lists, `a.b=[1, 2]` is a single, fixed value.

    Raises:
        UsageError: not one or two settings have several values, or a setting or value is repeated.
    """
    axes, fixed, keys = list[Axis](), list[str](), set[str]()
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        if key in keys:
            raise UsageError(f"--set {key} is given twice.", f"Give all values at once: --set {key}=1,2,3.")
        keys.add(key)
        try:
            values = parse_yaml(f"[{text}]", "It", UsageError)
        except UsageError as error:
            raise UsageError(
                f"--set {assignment}: not a list of values separated by commas. {error.message}",
                "Quote special characters.",
            ) from error
        if not isinstance(values, list) or len(values) < 2:
            fixed.append(assignment)  # validated when settings are loaded
            continue
        shown = tuple(value if isinstance(value, str) else json.dumps(value, default=str) for value in values)
        if twice := sorted({value for value in shown if shown.count(value) > 1}):
            raise UsageError(f"--set {assignment}: {twice[0]} is given twice.", "Remove one.")
        axes.append(Axis(key, shown, tuple(f"{key}={json.dumps(value, default=str)}" for value in values)))
    if not axes:
        raise UsageError("No setting has several values.", "For example: --set propagation.top_k=5,10.")
    if len(axes) > 2:
        raise UsageError(
            f"{len(axes)} settings have several values: {', '.join(axis.key for axis in axes)}.",
            "Vary at most two: fix one, and sweep again from the best combination.",
        )
    return Grid(tuple(axes), tuple(fixed))


def grid_methods(
    grid: Grid, config: str | Path, *, protocol: Sequence[str] = (), device: str | None = None
) -> tuple[Method, ...]:
    """Load a method for each of `grid.cells`, named `grid.name(cell)`; see `load_methods`."""
    if device is not None and any(axis.key == "features.device" for axis in grid.axes):
        raise UsageError("--device is given, and --set varies features.device.", "Remove --device.")
    methods = []
    for cell in grid.cells:
        varied = [axis.overrides[position] for axis, position in zip(grid.axes, cell, strict=True)]
        (method,) = load_methods([config], [*grid.fixed, *varied], protocol=protocol, device=device)
        methods.append(replace(method, name=grid.name(cell)))
    return tuple(methods)


def run_grid(
    benchmark: Benchmark, tasks: Sequence[Task], *, jobs: int, threads: int, observer: Observer
) -> tuple[Outcome, ...]:
    """Run the tasks of all combinations; see `runner.run`.

    Where an extractor cannot be built, only the clips of its combination fail.

    Raises:
        PropagateError: no extractor could be built; the error of the first combination.
        KeyboardInterrupt: Ctrl-C.
    """
    recorder, errors = _Recorder(observer), list[PropagateError]()
    groups = [list(group) for _, group in itertools.groupby(tasks, lambda task: task.method.name)]
    for group in groups:
        try:
            run(benchmark, group, jobs=jobs, threads=threads, observer=recorder)
        except PropagateError as error:
            errors.append(error)
            for task in group:
                if task.folder not in recorder.outcomes:
                    recorder.started(task)
                    recorder.ended(Outcome(task, None, str(error)))
    if errors and len(errors) == len(groups):
        raise errors[0]
    return tuple(recorder.outcomes[task.folder] for task in tasks)


class _Recorder:
    """Records outcomes by folder, including those before an error, and forwards calls to another observer."""

    def __init__(self, observer: Observer) -> None:
        self.outcomes: dict[Path, Outcome] = {}
        self.started, self.frame = observer.started, observer.frame
        self._observer = observer

    def ended(self, outcome: Outcome) -> None:
        self.outcomes[outcome.task.folder] = outcome
        self._observer.ended(outcome)


def sweep_table(grid: Grid, benchmark: Benchmark, results: Sequence[MethodResult]) -> Table:
    """Return `sweep.csv`: a row per combination with its values and all totals as shares with six decimals.

    Where clips are missing, totals are empty and the last column names the clips.
    """
    metrics = metric_names(results)
    rows = []
    for cell, result in zip(grid.cells, results, strict=True):
        totals = [_total(benchmark, result, metric) for metric in metrics]
        texts = ["" if math.isnan(total) else f"{total:.6f}" for total in totals]
        rows.append((*grid.values(cell), *texts, " ".join(unscored_clips(benchmark, result))))
    return Table(TABLE, (*(axis.key for axis in grid.axes), *metrics, "failed"), tuple(rows))


def sweep_figure(grid: Grid, benchmark: Benchmark, results: Sequence[MethodResult]) -> Figure:
    """Draw the ranking metric over the grid: a line for one axis; a heat map for two, the first one across."""
    metric = next(iter(metric_names(results)), "")
    values = np.array([_total(benchmark, result, metric) for result in results])
    values = values.reshape([len(axis.values) for axis in grid.axes])
    if len(grid.axes) == 1:
        (axis,) = grid.axes
        figure = value_line(values, axis.values, axis.key, metric)
    else:
        across, up = grid.axes
        figure = heat_map(values.T, up.values, across.values, (up.key, across.key), metric)
    figure.axes[0].set_title(benchmark.title, loc="left", fontsize=9, wrap=True, parse_math=False)
    return figure


def _total(benchmark: Benchmark, result: MethodResult, metric: str) -> float:
    """Return a total; NaN where clips or the metric are missing."""
    return math.nan if unscored_clips(benchmark, result) else float(result.scores.totals.get(metric, math.nan))
