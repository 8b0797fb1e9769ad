"""Runs clips: here, or in several processes. One that fails does not stop the others."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from propagate.benchmarks.benchmark import Benchmark, Clip
from propagate.benchmarks.running.clip_folder import Run, clip_folder, write_record
from propagate.benchmarks.running.methods import Method
from propagate.benchmarks.running.resources import limited_threads, peak_memory, reset_peak_memory
from propagate.errors import InputError, PropagateError, PropagateWarning
from propagate.pipeline import with_frames


@dataclass(frozen=True)
class Task:
    """One clip to run with one method.

    Attributes:
        method, clip: which.
        folder: of its results; does not exist yet.
    """

    method: Method
    clip: Clip
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: which.
        run: how it was run; None where it failed.
        error: why it failed, in a sentence or two; empty where it did not.
        trace: where it failed, for whoever wants to know.
    """

    task: Task
    run: Run | None
    error: str = ""
    trace: str = ""


@runtime_checkable
class Observer(Protocol):
    """Is told how far the run is."""

    def started(self, task: Task) -> None:
        """A clip begins."""
        ...

    def frame(self, task: Task) -> None:
        """One more frame of it is written."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """It is finished, or has failed."""
        ...


def run(
    benchmark: Benchmark, tasks: Sequence[Task], *, jobs: int = 1, threads: int, observer: Observer
) -> tuple[Outcome, ...]:
    """Run tasks, as many at a time as there are jobs.

    The results do not depend on the number of jobs, only, in the last digits of sums, on the number of threads.

    Args:
        benchmark: the data set.
        tasks: those of one method together, so that its extractor is built once per process.
        jobs: processes; 1: this one.
        threads: of torch and OpenCV in each of them.
        observer: is told of every clip and frame.

    Returns:
        The outcomes in the order of the tasks.

    Raises:
        UsageError, WeightsError, OutOfMemoryError: a method's extractor cannot be built.
        KeyboardInterrupt: of the user; the clips that were in work leave nothing behind.
    """
    if jobs > 1 and len(tasks) > 1:
        from propagate.benchmarks.running.workers import run_in_processes

        return run_in_processes(benchmark, tasks, jobs=jobs, threads=threads, observer=observer)
    outcomes = []
    for task in tasks:
        task.method.prepare()
        observer.started(task)
        outcome = run_clip(benchmark, task, threads=threads, on_frame=partial(observer.frame, task))
        observer.ended(outcome)
        outcomes.append(outcome)
    return tuple(outcomes)


def run_clip(benchmark: Benchmark, task: Task, *, threads: int, on_frame: Callable[[], None]) -> Outcome:
    """Run one clip in this process. Whatever fails is told in the outcome, and leaves nothing behind.

    Args:
        benchmark: the data set.
        task: which clip.
        threads: of torch and OpenCV.
        on_frame: is called after each frame.
    """
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
                run = Run(frames, seconds, peak_memory(), threads, _told(caught, True), _told(caught, False))
                write_record(folder, task.method, benchmark, task.clip, run)
        except PropagateError as error:
            return Outcome(task, None, str(error), traceback.format_exc())
        except MemoryError:
            return Outcome(task, None, "Memory ran out.", traceback.format_exc())
        except Exception as error:
            return Outcome(task, None, f"{type(error).__name__}: {error}", traceback.format_exc())
    return Outcome(task, run)


def _told(caught: Sequence[warnings.WarningMessage], ours: bool) -> tuple[str, ...]:
    """What warnings say, once each: those of this package, or the others."""
    chosen = (warning for warning in caught if issubclass(warning.category, PropagateWarning) == ours)
    return tuple(dict.fromkeys(str(warning.message) for warning in chosen))
