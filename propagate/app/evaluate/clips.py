"""Running and reporting the clips of an evaluation or a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from propagate.app.evaluate.data_sets import Running
from propagate.app.running.record import command_line
from propagate.app.terminal.console import TRACEBACKS, Terminal
from propagate.app.terminal.interrupt import Interrupted
from propagate.app.terminal.progress import Advance, progress
from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.report.summary import SUMMARY, MethodResult, write_summary, write_tables
from propagate.benchmarks.running.evaluation import plan
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import Method, fetch_weights
from propagate.benchmarks.running.records import RECORD
from propagate.benchmarks.running.resources import threads_per_job
from propagate.benchmarks.running.runner import Outcome, Task
from propagate.provenance import versions

ABSENT = "-"


@contextmanager
def explained_interrupts(benchmark: Benchmark, methods: Sequence[Method], output: Output) -> Iterator[None]:
    """On an interrupt, say which clips are finished; on any error, remove a new folder that is empty."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if output.discard_if_empty():
            raise Interrupted("Interrupted before the first clip was finished; nothing was written.") from interrupt
        raise Interrupted(_finished_clips(benchmark, methods, output)) from interrupt
    except BaseException:
        output.discard_if_empty()
        raise


def _finished_clips(benchmark: Benchmark, methods: Sequence[Method], output: Output) -> str:
    """Describe the content of the folder."""
    clips = [output.of(method.name) / clip.name for method in methods for clip in benchmark.clips]
    done = sum((clip / RECORD).is_file() for clip in clips)
    if not done:
        return f"Interrupted before the first clip was finished; {output.folder} holds none of this run."
    if (output.folder / SUMMARY).is_file():
        return f"The scores are in {output.folder / SUMMARY}. The rest is not finished; continue with --resume."
    if done == len(clips):
        return f"All {done} clips are finished and stay in {output.folder}; score them with --resume."
    return f"{done} of {len(clips)} clips are finished and stay in {output.folder}; continue with --resume."


def run_clips(
    terminal: Terminal,
    benchmark: Benchmark,
    methods: Sequence[Method],
    output: Output,
    running: Running,
    run: Callable[..., tuple[Outcome, ...]],
    max_jobs: int | None = None,
) -> tuple[Outcome, ...]:
    """Run the clips that are not finished, with progress."""
    planned = plan(benchmark, methods, output, running.threads)
    terminal.notes(planned.notes)
    if planned.finished:
        terminal.note(finished_already(planned.finished))
    if not planned.tasks:
        return ()
    fetch_weights(task.method for task in planned.tasks)
    jobs = min(running.jobs, max_jobs or len(planned.tasks))
    threads = running.threads or planned.threads or threads_per_job(jobs)
    with progress(terminal, "starting", sum(len(task.clip.pictures) for task in planned.tasks)) as advance:
        observer = ClipProgress(terminal, advance, len(planned.tasks))
        return run(benchmark, planned.tasks, jobs=jobs, threads=threads, observer=observer)


def finished_already(count: int) -> str:
    """Return a sentence on clips that are not run again."""
    return f"{count} {'clip is' if count == 1 else 'clips are'} finished already."


class ClipProgress:
    """Shows the running clips; see `runner.Observer`."""

    def __init__(self, terminal: Terminal, advance: Advance, total: int) -> None:
        self._terminal, self._advance, self._total = terminal, advance, total
        self._ended = 0
        self._notes = set[str]()
        self._running: dict[Path, int] = {}  # folder -> frames

    def started(self, task: Task) -> None:
        """Show a new clip."""
        self._running[task.folder] = 0
        number = self._ended + len(self._running)
        self._advance.describe(f"{task.method.name} {task.clip.name} ({number}/{self._total})")

    def frame(self, task: Task) -> None:
        """Count a frame."""
        self._running[task.folder] += 1
        self._advance()

    def ended(self, outcome: Outcome) -> None:
        """Print the outcome of a clip; count the frames that a failed one did not reach."""
        task, run = outcome.task, outcome.run
        self._ended += 1
        self._advance(len(task.clip.pictures) - self._running.pop(task.folder))
        if run is None:
            self._terminal.detail(f"{task.method.name} {task.clip.name} failed: {outcome.error}")
            return
        rate = run.frames / run.seconds
        self._terminal.detail(f"{task.method.name} {task.clip.name}: {run.frames} frames, {rate:.3g} frames/s")
        for note in run.notes:
            if note not in self._notes:  # thousands of clips may have the same note
                self._notes.add(note)
                self._terminal.note(f"{task.clip.name}: {note}")
        for note in run.details:
            self._terminal.detail(f"{task.clip.name}: {note}")


def write_results(benchmark: Benchmark, results: Sequence[MethodResult], output: Output) -> None:
    """Write the tables of every method and the summary."""
    for result in results:
        folder = output.of(result.name)
        output.register([folder / table.file for table in result.scores.tables])
        write_tables(folder, result.scores.tables)
    output.register([output.folder / SUMMARY])
    write_summary(output.folder, benchmark, results, versions(), command_line())


def metrics_of(results: Sequence[MethodResult]) -> list[str]:
    """Return the metrics of all results, in order."""
    return list(dict.fromkeys(metric for result in results for metric in result.scores.totals))


def percentages(totals: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    """Return a table cell for each metric."""
    values = [totals.get(metric, math.nan) for metric in metrics]
    return [ABSENT if math.isnan(value) else f"{100 * value:.1f}" for value in values]


def rate(result: MethodResult) -> str:
    """Return a table cell with the frames per second."""
    return ABSENT if result.frames_per_second is None else f"{result.frames_per_second:.3g}"


def print_problems(terminal: Terminal, result: MethodResult, prefix: str) -> None:
    """Print problems of scored clips as notes, and those of unscored clips as errors."""
    for clip, problems in result.scores.problems.items():
        report = terminal.note if clip in result.scores.clips else terminal.error
        for problem in problems if clip not in result.failed else ():
            report(f"{prefix}{clip}: {problem}")


def print_failures(terminal: Terminal, outcomes: Sequence[Outcome]) -> None:
    """Print the error of each failed clip, and its traceback with -vv."""
    for outcome in outcomes:
        if outcome.run is None:
            terminal.error(f"{outcome.task.method.name}, {outcome.task.clip.name}: {outcome.error}")
            if terminal.verbosity >= TRACEBACKS:
                terminal.err.print(Text(outcome.trace.rstrip(), "dim"), soft_wrap=True)
