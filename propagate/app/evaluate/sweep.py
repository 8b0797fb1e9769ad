"""`propagate sweep`: one or two settings varied on a data set."""

# Annotations are evaluated here, see `options.command`.
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from propagate.app import options
from propagate.app.evaluate.data_sets import Running, add_data_sets
from propagate.app.terminal.console import Terminal
from propagate.errors import SOME_FAILED

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark
    from propagate.benchmarks.report.summary import MethodResult
    from propagate.benchmarks.running.methods import Method
    from propagate.benchmarks.running.output import Output
    from propagate.benchmarks.running.runner import Outcome
    from propagate.benchmarks.running.sweep import Grid

_EXAMPLES = (
    "Examples:\n\n"
    "propagate sweep davis --data DAVIS --year 2016 --set features.timestep=21,51,101 --set features.block=1,2 -o out"
    "\n\npropagate sweep davis --data DAVIS --year 2016 --config rgb --set propagation.top_k=1,5,10 --sequence dog"
)


@dataclass(frozen=True)
class Choices:
    """What the user asked for.

    Raises:
        UsageError: a name that no preset and no baseline has; the data set has not been read yet.
    """

    running: Running
    weights: options.Weights
    cache: options.Cache
    assignments: Annotated[
        list[str],
        options.option(
            "--set",
            metavar="A.B=V1,V2,...",
            help="Values to try, of one or two settings; lists in brackets: a.b=[1,2],[3]. One value: fixed.",
            panel=options.SETTINGS,
        ),
    ]
    config: options.Config = None
    device: options.Device = None
    max_memory: options.MaxMemory = None
    output: Annotated[Path | None, options.output_option("DATASET_sweep")] = None

    def __post_init__(self) -> None:
        from propagate.benchmarks.running.methods import check_name

        if self.config is not None:
            check_name(self.config)


def sweep(terminal: Terminal, choices: Choices, benchmark: "Benchmark") -> int:
    """Run and score every combination, write and print.

    Returns:
        The exit code: 0, or 6 where combinations failed.

    Raises:
        UsageError, WeightsError: before anything is written.
        InputError: results that cannot be scored, or a folder that cannot be written.
        Stopped: Ctrl-C; finished clips stay.
    """
    from propagate.app.evaluate.evaluation import print_failures
    from propagate.app.evaluate.kept_clips import keeping_clips
    from propagate.benchmarks.report.summary import unscored_clips
    from propagate.benchmarks.running.evaluation import score
    from propagate.benchmarks.running.methods import fetch_weights, with_cache
    from propagate.benchmarks.running.output import Output
    from propagate.benchmarks.running.sweep import grid_methods, read_grid
    from propagate.settings import DEFAULT_PRESET

    cache = choices.cache.open()
    grid = read_grid(options.with_max_memory(choices.assignments, choices.max_memory))
    methods = grid_methods(grid, choices.config or DEFAULT_PRESET, protocol=benchmark.settings, device=choices.device)
    if cache is not None:
        methods = tuple(with_cache(method, cache.folder, cache.limit) for method in methods)
    if not choices.running.resume:  # before results of before are removed; resumed, nothing may be left to run
        fetch_weights(methods)
    folder = choices.output or Path(f"{benchmark.name}_sweep")
    output = Output(
        folder, [method.name for method in methods], resume=choices.running.resume, overwrite=choices.running.overwrite
    )
    with output.held() as notes, keeping_clips(benchmark, methods, output):
        terminal.notes(notes)
        outcomes = _run(terminal, benchmark, methods, output, choices)
        with terminal.status("Scoring"):
            results = score(benchmark, methods, outcomes, output)
        figure = _write(benchmark, grid, results, output)
    _print(terminal, benchmark, grid, results)
    terminal.result(str(figure))
    print_failures(terminal, outcomes)
    return SOME_FAILED if any(unscored_clips(benchmark, result) for result in results) else 0


def _run(
    terminal: Terminal, benchmark: "Benchmark", methods: Sequence["Method"], output: "Output", choices: Choices
) -> tuple["Outcome", ...]:
    from propagate.app.evaluate.evaluation import clip_progress, finished_already
    from propagate.benchmarks.running.evaluation import plan
    from propagate.benchmarks.running.methods import fetch_weights
    from propagate.benchmarks.running.resources import threads_per_job
    from propagate.benchmarks.running.sweep import run_grid

    planned = plan(benchmark, methods, output, choices.running.threads)
    terminal.notes(planned.notes)
    if planned.finished:
        terminal.note(finished_already(planned.finished))
    fetch_weights(task.method for task in planned.tasks)
    jobs = min(choices.running.jobs, len(benchmark.clips))
    threads = choices.running.threads or planned.threads or threads_per_job(jobs)
    with clip_progress(terminal, planned.tasks) as observer:
        return run_grid(benchmark, planned.tasks, jobs=jobs, threads=threads, observer=observer)


def _write(benchmark: "Benchmark", grid: "Grid", results: Sequence["MethodResult"], output: "Output") -> Path:
    """Write every combination's own tables, the summary, the table and the figure; return the figure's path."""
    from propagate.benchmarks.report.plots import save_png
    from propagate.benchmarks.report.summary import SUMMARY, write_summary, write_tables
    from propagate.benchmarks.running.sweep import FIGURE, TABLE, sweep_figure, sweep_table
    from propagate.provenance import versions

    for result in results:
        own = output.of(result.name)
        output.claim([own / table.file for table in result.scores.tables])
        write_tables(own, result.scores.tables)
    output.claim([output.folder / name for name in (SUMMARY, TABLE, FIGURE)])
    write_summary(output.folder, benchmark, results, versions(), shlex.join(["propagate", *sys.argv[1:]]))
    write_tables(output.folder, [sweep_table(grid, benchmark, results)])
    return save_png(sweep_figure(grid, benchmark, results), output.folder / FIGURE)


def _print(terminal: Terminal, benchmark: "Benchmark", grid: "Grid", results: Sequence["MethodResult"]) -> None:
    """The table in per cent, the best combination in bold."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from propagate.benchmarks.report.summary import unscored_clips

    metrics = list(dict.fromkeys(metric for result in results for metric in result.scores.totals))
    whole = [result for result in results if result.scores.totals and not unscored_clips(benchmark, result)]
    best = max(whole, key=lambda result: result.scores.totals[metrics[0]], default=None)
    table = Table(box=SIMPLE_HEAD, title=Text(f"{benchmark.title} (per cent)"), title_justify="left")
    for heading in (*(axis.key for axis in grid.axes), *metrics, "frames/s"):
        table.add_column(heading, justify="right")
    for cell, result in zip(grid.cells, results, strict=True):
        values = [axis.values[position] for axis, position in zip(grid.axes, cell, strict=True)]
        totals = [result.scores.totals.get(metric, math.nan) for metric in metrics]
        shown = ["-" if math.isnan(value) else f"{100 * value:.1f}" for value in totals]
        if result not in whole:
            shown = ["failed", *["-"] * (len(metrics) - 1)][: max(1, len(metrics))]
        speed = "-" if result.frames_per_second is None else f"{result.frames_per_second:.3g}"
        table.add_row(*values, *shown, speed, style="bold" if result is best else None)
    terminal.result(table)
    terminal.notes(benchmark.remarks)
    for result in results:
        if not result.scores.clips:
            for remark in result.scores.remarks:
                terminal.error(f"{result.name}: {remark}")
        for clip, problems in result.scores.problems.items():
            tell = terminal.note if clip in result.scores.clips else terminal.error
            for problem in problems if clip not in result.failed else ():
                tell(f"{result.name}, {clip}: {problem}")
    if best is not None:
        terminal.result(f"best: {best.name}, {metrics[0]} {100 * best.scores.totals[metrics[0]]:.1f}")


app = typer.Typer(
    help="Try all combinations of one or two settings on a data set: a table and a heat map.", no_args_is_help=True
)
add_data_sets(app, sweep, _EXAMPLES)
