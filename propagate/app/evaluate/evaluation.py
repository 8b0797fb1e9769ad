"""One evaluation: methods are run and scored on a data set, and the outcome is written and printed."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from propagate.app.evaluate.choices import Choices
from propagate.app.evaluate.kept_clips import keeping_clips
from propagate.app.terminal.console import TRACEBACKS, Terminal
from propagate.app.terminal.progress import Advance, progress
from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.summary import (
    SUMMARY,
    MethodResult,
    memory_note,
    scored_share,
    write_summary,
    write_tables,
)
from propagate.benchmarks.running.evaluation import plan, score, score_existing
from propagate.benchmarks.running.methods import Method, fetch_weights, load_methods
from propagate.benchmarks.running.output import Output
from propagate.benchmarks.running.resources import threads_per_job
from propagate.benchmarks.running.runner import Outcome, Task, run
from propagate.errors import SOME_FAILED, UsageError
from propagate.files.names import real_path
from propagate.provenance import versions
from propagate.settings import DEFAULT_PRESET

REPORT = "report.html"
_ABSENT = "-"


def evaluate(terminal: Terminal, benchmark: Benchmark, choices: Choices) -> int:
    """Run, score, write and print.

    Returns:
        The exit code: 0, or 6 where a clip of any method failed or could not be scored.

    Raises:
        UsageError, WeightsError: before anything is written.
        InputError: no results could be scored, or a folder cannot be written.
        Stopped: Ctrl-C; finished clips stay.
    """
    configs = choices.configs or ([] if choices.results else [DEFAULT_PRESET])
    protocol = benchmark.settings
    methods = load_methods(configs, choices.changes, protocol=protocol, device=choices.device)
    with terminal.status("Scoring"):
        existing = score_existing(benchmark, choices.results or ())
    names = [method.name for method in methods] + [result.name for result in existing]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Both --config and --results are called {twice}.", "Rename one: rows are known by that name.")
    if not methods and choices.output is None:
        _print(terminal, benchmark, existing, terminal.answer)  # it is written nowhere else
        return _exit_code(benchmark, existing)
    if not choices.running.resume:  # before results of before are removed; resumed, nothing may be left to run
        fetch_weights(methods)
    output = _open(benchmark, choices, names)
    with output.held() as notes, keeping_clips(benchmark, methods, output):
        terminal.notes(notes)
        outcomes = _run(terminal, benchmark, methods, output, choices)
        with terminal.status("Scoring"):
            results = (*score(benchmark, methods, outcomes, output), *existing)
        _write(terminal, benchmark, results, output, report=not choices.no_report)
    _print(terminal, benchmark, results, terminal.result)
    terminal.result(str(output.folder / (REPORT if (output.folder / REPORT).exists() else SUMMARY)))
    print_failures(terminal, outcomes)
    return _exit_code(benchmark, results)


def print_failures(terminal: Terminal, outcomes: Sequence[Outcome]) -> None:
    """Say of every clip that failed why; with -vv also where."""
    for outcome in outcomes:
        if outcome.run is None:
            terminal.error(f"{outcome.task.method.name}, {outcome.task.clip.name}: {outcome.error}")
            if terminal.verbosity >= TRACEBACKS:
                terminal.err.print(Text(outcome.trace.rstrip(), "dim"), soft_wrap=True)


def finished_already(count: int) -> str:
    """A sentence about clips that need not be run."""
    return f"{count} {'clip is' if count == 1 else 'clips are'} finished already."


@contextmanager
def clip_progress(terminal: Terminal, tasks: Sequence[Task]) -> Iterator[ClipProgress]:
    """The progress over all frames of all tasks, for `runner.run`."""
    with progress(terminal, "starting", sum(len(task.clip.pictures) for task in tasks)) as advance:
        yield ClipProgress(terminal, advance, len(tasks))


class ClipProgress:
    """Shows what is being run, and how far all of it is."""

    def __init__(self, terminal: Terminal, advance: Advance, total: int) -> None:
        self._terminal, self._advance, self._total = terminal, advance, total
        self._ended = 0
        self._told = set[str]()
        self._running: dict[Path, int] = {}  # folder -> frames

    def started(self, task: Task) -> None:
        """A clip begins."""
        self._running[task.folder] = 0
        number = self._ended + len(self._running)
        self._advance.describe(f"{task.method.name} {task.clip.name} ({number}/{self._total})")

    def frame(self, task: Task) -> None:
        """One more frame of it is written."""
        self._running[task.folder] += 1
        self._advance()

    def ended(self, outcome: Outcome) -> None:
        """It is finished, or has failed; the frames that a failed one did not reach are done with too."""
        task = outcome.task
        self._ended += 1
        self._advance(len(task.clip.pictures) - self._running.pop(task.folder))
        if outcome.run is None:
            self._terminal.detail(f"{task.method.name} {task.clip.name} failed: {outcome.error}")
            return
        rate = outcome.run.frames / outcome.run.seconds
        self._terminal.detail(f"{task.method.name} {task.clip.name}: {outcome.run.frames} frames, {rate:.3g} frames/s")
        for note in outcome.run.notes:
            if note not in self._told:  # thousands of clips may have the same to say
                self._told.add(note)
                self._terminal.note(f"{task.clip.name}: {note}")
        for note in outcome.run.details:
            self._terminal.detail(f"{task.clip.name}: {note}")


def _open(benchmark: Benchmark, choices: Choices, names: Sequence[str]) -> Output:
    folder = choices.output or Path(f"{benchmark.name}_results")
    for results in choices.results or ():
        if real_path(results).is_relative_to(real_path(folder)):
            raise UsageError(f"--results {results} lies in the output folder {folder}.", "Choose another --output.")
    return Output(folder, names, resume=choices.running.resume, overwrite=choices.running.overwrite)


def _run(
    terminal: Terminal, benchmark: Benchmark, methods: Sequence[Method], output: Output, choices: Choices
) -> tuple[Outcome, ...]:
    planned = plan(benchmark, methods, output, choices.running.threads)
    terminal.notes(planned.notes)
    if planned.finished:
        terminal.note(finished_already(planned.finished))
    if not planned.tasks:
        return ()
    fetch_weights(task.method for task in planned.tasks)
    jobs = min(choices.running.jobs, len(planned.tasks))
    threads = choices.running.threads or planned.threads or threads_per_job(jobs)
    with clip_progress(terminal, planned.tasks) as observer:
        return run(benchmark, planned.tasks, jobs=jobs, threads=threads, observer=observer)


def _write(
    terminal: Terminal, benchmark: Benchmark, results: Sequence[MethodResult], output: Output, *, report: bool
) -> None:
    command = shlex.join(["propagate", *sys.argv[1:]])
    for result in results:
        folder = output.of(result.name)
        output.claim([folder / table.file for table in result.scores.tables])
        write_tables(folder, result.scores.tables)
    output.claim([output.folder / SUMMARY])
    write_summary(output.folder, benchmark, results, versions(), command)
    if report and any(result.scores.totals for result in results):
        from propagate.benchmarks.report.report import report_files, write_report

        output.claim(report_files(benchmark, results, output.folder))
        with terminal.status("Drawing the report"):
            write_report(benchmark, results, output.folder, versions(), command)


def _print(
    terminal: Terminal, benchmark: Benchmark, results: Sequence[MethodResult], show: Callable[[Table], None]
) -> None:
    metrics = list(dict.fromkeys(metric for result in results for metric in result.scores.totals))
    table = Table(box=SIMPLE_HEAD, title=Text(f"{benchmark.title} (per cent)"), title_justify="left")
    table.add_column("")
    for heading in (*metrics, "frames/s", "peak GiB"):
        table.add_column(heading, justify="right")
    for result in results:
        speed = _ABSENT if result.frames_per_second is None else f"{result.frames_per_second:.3g}"
        memory = _ABSENT if result.peak_memory is None else f"{result.peak_memory / 2**30:.2f}"
        share = scored_share(benchmark, result)
        label = Text.assemble(result.name, (f" ({share})", "red")) if share else Text(result.name)
        table.add_row(label, *_cells(result.scores.totals, metrics), speed, memory)
    for row in benchmark.published:
        name = f"{row.method} (published, not run here)"
        table.add_row(name, *_cells(row.totals, metrics), _ABSENT, _ABSENT, style="dim")
    show(table)
    terminal.notes(benchmark.remarks)
    if note := memory_note(results):
        terminal.note(note)
    for result in results:
        prefix = f"{result.name}: " if len(results) > 1 else ""
        tell = terminal.note if result.scores.clips else terminal.error
        for remark in result.scores.remarks:
            if remark not in benchmark.remarks:
                tell(prefix + remark)
        for clip, problems in result.scores.problems.items():
            tell = terminal.note if clip in result.scores.clips else terminal.error
            for problem in problems if clip not in result.failed else ():
                tell(f"{prefix}{clip}: {problem}")


def _exit_code(benchmark: Benchmark, results: Sequence[MethodResult]) -> int:
    return SOME_FAILED if any(scored_share(benchmark, result) for result in results) else 0


def _cells(totals: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    values = [totals.get(metric, math.nan) for metric in metrics]
    return [_ABSENT if math.isnan(value) else f"{100 * value:.1f}" for value in values]
