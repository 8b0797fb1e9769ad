"""A grid search: one preset with one or two settings varied, every combination run and scored.

Timestep and block of a diffusion model are chosen so in DIFT (Tang et al., NeurIPS 2023).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from propagate.benchmarks.benchmark import Benchmark, Table
from propagate.benchmarks.report.plots import heat_map, value_line
from propagate.benchmarks.report.summary import MethodResult, unscored_clips
from propagate.benchmarks.running.methods import Method, load_methods
from propagate.benchmarks.running.runner import Observer, Outcome, Task, run
from propagate.errors import PropagateError, UsageError
from propagate.files.documents import parse_yaml

TABLE, FIGURE = "sweep.csv", "sweep.png"


@dataclass(frozen=True)
class Axis:
    """A setting that is varied.

    Attributes:
        key: dotted.
        values: as they are shown, in the order they were given.
        overrides: `key=value` of each, for `load_settings`.
    """

    key: str
    values: tuple[str, ...]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """All combinations of the values of one or two axes.

    Attributes:
        axes: the first one varies slowest.
        fixed: overrides that all combinations share.
    """

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]

    @property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """Every combination, as the position of its value on each axis."""
        return tuple(itertools.product(*(range(len(axis.values)) for axis in self.axes)))

    def name(self, cell: Sequence[int]) -> str:
        """Of the folder of a combination: `features.timestep=21,features.block=1`; other signs are written as %2F."""
        parts = zip(self.axes, cell, strict=True)
        return ",".join(f"{axis.key}={quote(axis.values[position], safe='[], ')}" for axis, position in parts)


def read_grid(assignments: Iterable[str]) -> Grid:
    """The grid that `key=v1,v2,...` spans.

    Values are separated by commas as in a YAML list, so what has a comma of its own keeps it in brackets or quotes:
    `a.b=[1, 2],[3]` are two lists, `a.b=[1, 2]` is one value, which is fixed.

    Raises:
        UsageError: no setting or more than two have several values, one is given twice, or a value is.
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
                f"--set {assignment}: no values separated by commas. {error.message}",
                "Put quotes around special signs.",
            ) from error
        if not isinstance(values, list) or len(values) < 2:
            fixed.append(assignment)  # with whatever is wrong with it, which is known where settings are read
            continue
        shown = tuple(_shown(value) for value in values)
        if twice := sorted({value for value in shown if shown.count(value) > 1}):
            raise UsageError(f"--set {assignment}: {twice[0]} is there twice.", "Leave one out.")
        axes.append(Axis(key, shown, tuple(f"{key}={json.dumps(value, default=str)}" for value in values)))
    if not axes:
        raise UsageError("No setting has several values.", "For example: --set propagation.top_k=5,10.")
    if len(axes) > 2:
        raise UsageError(
            f"{len(axes)} settings have several values: {', '.join(axis.key for axis in axes)}.",
            "Two at most: fix one, and sweep again from the best combination.",
        )
    return Grid(tuple(axes), tuple(fixed))


def grid_methods(
    grid: Grid, config: str | Path, *, protocol: Sequence[str] = (), device: str | None = None
) -> tuple[Method, ...]:
    """A method for each of `grid.cells`, called `grid.name(cell)`; see `load_methods`.

    Raises:
        UsageError: unknown preset or key, a value that does not fit, or a baseline, which has no settings.
        WeightsError: weights that were named cannot be read.
    """
    if device is not None and any(axis.key == "features.device" for axis in grid.axes):
        raise UsageError("--device is given, and --set varies features.device.", "Leave out --device.")
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

    A combination whose extractor cannot be built fails alone, as a clip does.

    Raises:
        PropagateError: of the first combination, where no extractor of any could be built.
        KeyboardInterrupt: of the user.
    """
    listener, errors = _Listener(observer), list[PropagateError]()
    groups = [list(group) for _, group in itertools.groupby(tasks, lambda task: task.method.name)]
    for group in groups:
        try:
            run(benchmark, group, jobs=jobs, threads=threads, observer=listener)
        except PropagateError as error:
            errors.append(error)
            for task in group:
                if task.folder not in listener.outcomes:
                    listener.started(task)
                    listener.ended(Outcome(task, None, str(error)))
    if errors and len(errors) == len(groups):
        raise errors[0]
    return tuple(listener.outcomes[task.folder] for task in tasks)


class _Listener:
    """Keeps the outcomes, those before an error too, and tells another observer of everything.

    Attributes:
        outcomes: folder of a task -> its outcome.
    """

    def __init__(self, observer: Observer) -> None:
        self.outcomes: dict[Path, Outcome] = {}
        self.started, self.frame = observer.started, observer.frame
        self._observer = observer

    def ended(self, outcome: Outcome) -> None:
        self.outcomes[outcome.task.folder] = outcome
        self._observer.ended(outcome)


def sweep_table(grid: Grid, benchmark: Benchmark, results: Sequence[MethodResult]) -> Table:
    """`sweep.csv`: a row per combination with its values and all totals as shares with six decimals.

    Of a combination that lacks clips the totals are empty and the last column names the clips.

    Args:
        grid: the combinations.
        benchmark: the data set.
        results: of each of `grid.cells`.
    """
    metrics = _metrics(results)
    rows = []
    for cell, result in zip(grid.cells, results, strict=True):
        values = [axis.values[position] for axis, position in zip(grid.axes, cell, strict=True)]
        missing = unscored_clips(benchmark, result)
        totals = [_six(math.nan if missing else result.scores.totals.get(metric, math.nan)) for metric in metrics]
        rows.append((*values, *totals, " ".join(missing)))
    return Table(TABLE, (*(axis.key for axis in grid.axes), *metrics, "failed"), tuple(rows))


def sweep_figure(grid: Grid, benchmark: Benchmark, results: Sequence[MethodResult]) -> Figure:
    """The ranking metric over the grid: a heat map of two axes, the first one to the right; a line along one.

    Args:
        grid: the combinations.
        benchmark: the data set.
        results: of each of `grid.cells`.
    """
    metric = next(iter(_metrics(results)), "")
    values = np.array(
        [
            math.nan if unscored_clips(benchmark, result) else float(result.scores.totals.get(metric, math.nan))
            for result in results
        ]
    ).reshape([len(axis.values) for axis in grid.axes])
    if len(grid.axes) == 1:
        (axis,) = grid.axes
        figure = value_line(values, axis.values, axis.key, metric)
    else:
        across, up = grid.axes
        figure = heat_map(values.T, up.values, across.values, (up.key, across.key), metric)
    figure.axes[0].set_title(benchmark.title, loc="left", fontsize=9, wrap=True, parse_math=False)
    return figure


def _metrics(results: Sequence[MethodResult]) -> tuple[str, ...]:
    """All totals, the ranking one first."""
    return tuple(dict.fromkeys(metric for result in results for metric in result.scores.totals))


def _six(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
