"""One sweep: run and score every combination of settings, then write and print a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from propagate.app.evaluate import clips
from propagate.app.evaluate.data_sets import SweepChoices
from propagate.app.options import Changes
from propagate.app.terminal.console import Terminal
from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.plots import save_png
from propagate.benchmarks.report.summary import MethodResult, unscored_clips, write_tables
from propagate.benchmarks.running import sweep as grids
from propagate.benchmarks.running.evaluation import score
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import fetch_weights, with_cache
from propagate.benchmarks.running.sweep import Grid
from propagate.errors import SOME_FAILED
from propagate.settings import DEFAULT_PRESET


def sweep(terminal: Terminal, benchmark: Benchmark, choices: SweepChoices) -> int:
    """Run and score every combination, write and print; return 0, or 6 where combinations failed.

    Raises:
        UsageError, WeightsError: before anything is written.
        InputError: results cannot be scored, or a folder cannot be written.
        Interrupted: a signal arrived; finished clips stay.
    """
    running, cache = choices.running, choices.cache.open()
    grid = grids.read_grid(Changes(choices.assignments, max_memory=choices.max_memory).with_memory)
    methods = grids.grid_methods(
        grid, choices.config or DEFAULT_PRESET, protocol=benchmark.settings, device=choices.device
    )
    if cache is not None:
        methods = tuple(with_cache(method, cache.folder, cache.limit) for method in methods)
    if not running.resume:  # before earlier results are removed; with --resume, perhaps no clip is left to run
        fetch_weights(methods)
    folder = choices.output or Path(f"{benchmark.name}_sweep")
    names = [method.name for method in methods]
    output = Output(folder, names, resume=running.resume, overwrite=running.overwrite)
    with output.lock() as notes, clips.explained_interrupts(benchmark, methods, output):
        terminal.notes(notes)
        outcomes = clips.run_clips(terminal, benchmark, methods, output, running, grids.run_grid, len(benchmark.clips))
        with terminal.status("Scoring"):
            results = score(benchmark, methods, outcomes, output)
        clips.write_results(benchmark, results, output)
        output.register([folder / name for name in (grids.TABLE, grids.FIGURE)])
        write_tables(folder, [grids.sweep_table(grid, benchmark, results)])
        figure = save_png(grids.sweep_figure(grid, benchmark, results), folder / grids.FIGURE)
    _print(terminal, benchmark, grid, results)
    terminal.result(str(figure))
    clips.print_failures(terminal, outcomes)
    return SOME_FAILED if any(unscored_clips(benchmark, result) for result in results) else 0


def _print(terminal: Terminal, benchmark: Benchmark, grid: Grid, results: Sequence[MethodResult]) -> None:
    """Print the table with the best combination in bold."""
    metrics = clips.metrics_of(results)
    whole = [result for result in results if result.scores.totals and not unscored_clips(benchmark, result)]
    best = max(whole, key=lambda result: result.scores.totals[metrics[0]], default=None)
    table = Table(box=SIMPLE_HEAD, title=Text(f"{benchmark.title} (per cent)"), title_justify="left")
    for heading in (*(axis.key for axis in grid.axes), *metrics, "frames/s"):
        table.add_column(heading, justify="right")
    for cell, result in zip(grid.cells, results, strict=True):
        values = [axis.values[position] for axis, position in zip(grid.axes, cell, strict=True)]
        cells = clips.percentages(result.scores.totals, metrics)
        if result not in whole:
            cells = ["failed", *[clips.ABSENT] * (len(metrics) - 1)]
        table.add_row(*values, *cells, clips.rate(result), style="bold" if result is best else None)
    terminal.result(table)
    terminal.notes(benchmark.remarks)
    for result in results:
        for remark in () if result.scores.clips else result.scores.remarks:
            terminal.error(f"{result.name}: {remark}")
        clips.print_problems(terminal, result, f"{result.name}, ")
    if best is not None:
        terminal.result(f"best: {best.name}, {metrics[0]} {100 * best.scores.totals[metrics[0]]:.1f}")
