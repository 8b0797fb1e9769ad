"""Run clips in this process or in several. A failed clip does not stop the others."""

from __future__ import annotations

import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol, runtime_checkable

from propagate.benchmarks.benchmark import Benchmark, Clip
from propagate.benchmarks.running.clip_folder import Run, clip_folder, remove_unfinished, write_record
from propagate.benchmarks.running.methods import Method
from propagate.benchmarks.running.processes import Child, children
from propagate.benchmarks.running.resources import limited_threads, peak_memory, reset_peak_memory
from propagate.errors import InputError, PropagateError, PropagateWarning
from propagate.pipeline import with_frames


@dataclass(frozen=True)
class Task:
    """One clip to run with one method; the folder of its results does not exist yet."""

    method: Method
    clip: Clip
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task."""

    task: Task  # the task
    run: Run | None  # its measurements; None where it failed
    error: str = ""  # sentences that say why it failed
    trace: str = ""  # traceback of the failure


@runtime_checkable
class Observer(Protocol):
    """Callbacks for progress."""

    def started(self, task: Task) -> None:
        """Called when a clip starts."""

    def frame(self, task: Task) -> None:
        """Called after each written frame."""

    def ended(self, outcome: Outcome) -> None:
        """Called when a clip is finished or has failed."""


def run(
    benchmark: Benchmark, tasks: Sequence[Task], *, jobs: int = 1, threads: int, observer: Observer
) -> tuple[Outcome, ...]:
    """Run tasks, grouped by method, in `jobs` processes (1: this one) and return their outcomes in the same order.

    Results do not depend on the number of jobs; last digits of sums may depend on the threads of each process.

    Raises:
        UsageError, WeightsError, OutOfMemoryError: a method's extractor cannot be built.
        KeyboardInterrupt: Ctrl-C; unfinished clips leave no files.
    """
    if jobs > 1 and len(tasks) > 1:
        return _run_in_processes(benchmark, tasks, jobs, threads, observer)
    outcomes = []
    for task in tasks:
        task.method.prepare()
        observer.started(task)
        outcome = run_clip(benchmark, task, threads=threads, on_frame=partial(observer.frame, task))
        observer.ended(outcome)
        outcomes.append(outcome)
    return tuple(outcomes)


def run_clip(benchmark: Benchmark, task: Task, *, threads: int, on_frame: Callable[[], None]) -> Outcome:
    """Run one clip in this process. Any error goes into the outcome; a failed clip leaves no files."""
    with warnings.catch_warnings(record=True) as caught, limited_threads(threads):
        warnings.simplefilter("default")
        try:
            with clip_folder(task.folder) as folder:
                reset_peak_memory()
                start = time.perf_counter()
                frames = 0
                carried = partial(task.method.carry, label=benchmark.label(task.clip))
                with benchmark.writer(task.clip, folder) as write:
                    for frame, prediction in with_frames(benchmark.frames(task.clip), carried):
                        write(frame, prediction)
                        frames += 1
                        on_frame()
                if frames != len(task.clip.pictures):
                    raise InputError(f"{frames} of {len(task.clip.pictures)} frames were read.", "Check its pictures.")
                seconds = time.perf_counter() - start
                notes, details = (_messages(caught, ours) for ours in (True, False))
                run = Run(frames, seconds, peak_memory(), threads, notes, details)
                write_record(folder, task.method, benchmark, task.clip, run)
        except Exception as error:
            sentence = str(error) if isinstance(error, PropagateError) else f"{type(error).__name__}: {error}"
            if isinstance(error, MemoryError):
                sentence = "Memory ran out."
            return Outcome(task, None, sentence, traceback.format_exc())
    return Outcome(task, run)


def _messages(caught: Sequence[warnings.WarningMessage], ours: bool) -> tuple[str, ...]:
    """Return the distinct messages of this package's warnings, or of the others."""
    chosen = (warning for warning in caught if issubclass(warning.category, PropagateWarning) == ours)
    return tuple(dict.fromkeys(str(warning.message) for warning in chosen))


def _run_in_processes(
    benchmark: Benchmark, tasks: Sequence[Task], jobs: int, threads: int, observer: Observer
) -> tuple[Outcome, ...]:
    """Run tasks in processes. When one dies (for example, out of memory), its clip fails and a new one replaces it."""
    waiting, outcomes = deque(enumerate(tasks)), dict[int, Outcome]()
    idle: list[Child] = []
    busy: dict[Connection, tuple[Child, int]] = {}
    try:
        with children() as start:
            while waiting or busy:
                while waiting and len(busy) < jobs:
                    child = idle.pop() if idle else start(_work, benchmark, threads)
                    number, task = waiting.popleft()
                    busy[child.connection] = child, number
                    with suppress(OSError):  # a dead process is detected below
                        child.connection.send(task)
                    observer.started(task)
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    child, number = busy[connection]
                    try:
                        message: Outcome | PropagateError | None = connection.recv()
                    except (EOFError, OSError):
                        remove_unfinished(tasks[number].folder)
                        message = Outcome(tasks[number], None, f"Its process ended ({child.ending()}).")
                    else:
                        if isinstance(message, PropagateError):  # the method's extractor cannot be built
                            raise message
                        if message is None:
                            observer.frame(tasks[number])
                            continue
                        idle.append(child)
                    del busy[connection]
                    outcomes[number] = message
                    observer.ended(message)
    finally:
        for _, number in busy.values():
            remove_unfinished(tasks[number].folder)
    return tuple(outcomes[number] for number in range(len(tasks)))


def _work(connection: Connection, benchmark: Benchmark, threads: int) -> None:
    """Receive tasks; send None per frame, then the clip's outcome or a fatal error."""
    with suppress(EOFError, OSError):
        while True:
            task: Task = connection.recv()
            try:
                task.method.prepare()
            except PropagateError as error:
                connection.send(error)
                return
            connection.send(run_clip(benchmark, task, threads=threads, on_frame=lambda: connection.send(None)))
