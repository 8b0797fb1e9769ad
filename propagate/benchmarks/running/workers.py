"""Processes that run clips, one at a time each."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.running.clip_folder import remove_unfinished
from propagate.benchmarks.running.processes import Child, children
from propagate.benchmarks.running.runner import Observer, Outcome, Task, run_clip
from propagate.errors import PropagateError


def run_in_processes(
    benchmark: Benchmark, tasks: Sequence[Task], *, jobs: int, threads: int, observer: Observer
) -> tuple[Outcome, ...]:
    """Run tasks in processes; see `runner.run`.

    A process that dies (killed by the system for want of memory, say) is the failure of its clip, and a new one takes
    its place.
    """
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
                    with suppress(OSError):  # a process that is dead already is noticed at the other end of the line
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
    """The life of a process: tasks come; None for each frame, then the clip's outcome or a fatal error go."""
    with suppress(EOFError, OSError):
        while True:
            task: Task = connection.recv()
            try:
                task.method.prepare()
            except PropagateError as error:
                connection.send(error)
                return
            connection.send(run_clip(benchmark, task, threads=threads, on_frame=lambda: connection.send(None)))
