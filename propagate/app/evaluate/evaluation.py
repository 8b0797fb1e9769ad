"""One evaluation: run and score methods on a data set, then write and print the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from propagate.app.evaluate import clips
from propagate.app.evaluate.data_sets import Choices
from propagate.app.running.record import command_line
from propagate.app.terminal.console import Terminal
from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.summary import SUMMARY, MethodResult, memory_note, scored_share
from propagate.benchmarks.running.evaluation import score, score_existing
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import fetch_weights, load_methods
from propagate.benchmarks.running.runner import run
from propagate.errors import SOME_FAILED, UsageError
from propagate.files.names import real_path
from propagate.provenance import versions
from propagate.settings import DEFAULT_PRESET

REPORT = "report.html"


def evaluate(terminal: Terminal, benchmark: Benchmark, choices: Choices) -> int:
    """Run, score, write and print; return 0, or 6 where a clip of any method failed or could not be scored.

    Raises:
        UsageError, WeightsError: before anything is written.
        InputError: no results could be scored, or a folder cannot be written.
        Interrupted: a signal arrived; finished clips stay.
    """
    running, changes = choices.running, choices.changes
    configs = choices.configs or ([] if choices.results else [DEFAULT_PRESET])
    methods = load_methods(configs, changes.with_memory, protocol=benchmark.settings, device=changes.device)
    with terminal.status("Scoring"):
        existing = score_existing(benchmark, choices.results or ())
    names = [method.name for method in methods] + [result.name for result in existing]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Both --config and --results are called {twice}.", "Rename one: it names a row.")
    if not methods and choices.output is None:
        _print(terminal, benchmark, existing, terminal.answer)  # nothing is written
        return SOME_FAILED if any(scored_share(benchmark, result) for result in existing) else 0
    if not running.resume:  # before earlier results are removed; with --resume, perhaps no clip is left to run
        fetch_weights(methods)
    folder = choices.output or Path(f"{benchmark.name}_results")
    for results_folder in choices.results or ():
        if real_path(results_folder).is_relative_to(real_path(folder)):
            raise UsageError(
                f"--results {results_folder} lies in the output folder {folder}.", "Choose another --output."
            )
    output = Output(folder, names, resume=running.resume, overwrite=running.overwrite)
    with output.lock() as notes, clips.explained_interrupts(benchmark, methods, output):
        terminal.notes(notes)
        outcomes = clips.run_clips(terminal, benchmark, methods, output, running, run)
        with terminal.status("Scoring"):
            results = (*score(benchmark, methods, outcomes, output), *existing)
        clips.write_results(benchmark, results, output)
        if not choices.no_report and any(result.scores.totals for result in results):
            from propagate.benchmarks.report.report import report_files, write_report  # with matplotlib

            output.register(report_files(benchmark, results, folder))
            with terminal.status("Drawing the report"):
                write_report(benchmark, results, folder, versions(), command_line())
    _print(terminal, benchmark, results, terminal.result)
    terminal.result(str(folder / (REPORT if (folder / REPORT).exists() else SUMMARY)))
    clips.print_failures(terminal, outcomes)
    return SOME_FAILED if any(scored_share(benchmark, result) for result in results) else 0


def _print(
    terminal: Terminal, benchmark: Benchmark, results: Sequence[MethodResult], show: Callable[[Table], None]
) -> None:
    metrics = clips.metrics_of(results)
    table = Table(box=SIMPLE_HEAD, title=Text(f"{benchmark.title} (per cent)"), title_justify="left")
    table.add_column("")
    for heading in (*metrics, "frames/s", "peak GiB"):
        table.add_column(heading, justify="right")
    for result in results:
        memory = clips.ABSENT if result.peak_memory is None else f"{result.peak_memory / 2**30:.2f}"
        share = scored_share(benchmark, result)
        label = Text.assemble(result.name, (f" ({share})", "red")) if share else Text(result.name)
        table.add_row(label, *clips.percentages(result.scores.totals, metrics), clips.rate(result), memory)
    for row in benchmark.published:
        name = f"{row.method} (published, not run here)"
        table.add_row(name, *clips.percentages(row.totals, metrics), clips.ABSENT, clips.ABSENT, style="dim")
    show(table)
    terminal.notes(benchmark.remarks)
    if note := memory_note(results):
        terminal.note(note)
    for result in results:
        prefix = f"{result.name}: " if len(results) > 1 else ""
        report = terminal.note if result.scores.clips else terminal.error
        for remark in result.scores.remarks:
            if remark not in benchmark.remarks:
                report(prefix + remark)
        clips.print_problems(terminal, result, prefix)
