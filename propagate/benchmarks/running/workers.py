"""Processes that run clips, one at a time each.

They are spawned, not forked: a fork of a process that has started threads, torch's or CUDA's, may hang.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.running.clip_folder import remove_unfinished
from propagate.benchmarks.running.runner import Observer, Outcome, Task, run_clip
from propagate.errors import PropagateError
from propagate.weights.consent import forbid


def run_in_processes(
    benchmark: Benchmark, tasks: Sequence[Task], *, jobs: int, threads: int, observer: Observer
) -> tuple[Outcome, ...]:
    """Run tasks in processes; see `runner.run`.

    A process that dies (killed by the system for want of memory, say) is the failure of its clip, and a new one takes
    its place.
    """
    waiting, outcomes = deque(enumerate(tasks)), dict[int, Outcome]()
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker(benchmark, threads)
                number, task = waiting.popleft()
                busy[worker.connection] = worker, number
                worker.give(task)
                observer.started(task)
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, number = busy[connection]
                outcome = worker.receive(tasks[number])
                if outcome is None:
                    observer.frame(tasks[number])
                    continue
                del busy[connection]
                if worker.is_alive:
                    idle.append(worker)
                outcomes[number] = outcome
                observer.ended(outcome)
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.stop()
        for _, number in busy.values():
            remove_unfinished(tasks[number].folder)
    return tuple(outcomes[number] for number in range(len(tasks)))


class _Worker:
    """A process and the line to it.

    Attributes:
        connection: what it sends: None for each frame, then the clip's outcome, or the error that ends the whole run.
        is_alive: it can take another task.
    """

    def __init__(self, benchmark: Benchmark, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.is_alive = True
        self._process = context.Process(target=_work, args=(theirs, benchmark, threads), daemon=True)
        start(self._process)
        theirs.close()  # so that the line ends when the process does

    def give(self, task: Task) -> None:
        """Hand over a task."""
        with suppress(OSError):  # a process that is dead already is noticed at the other end of the line
            self.connection.send(task)

    def receive(self, task: Task) -> Outcome | None:
        """What became of the task; None where one more frame of it is written.

        Raises:
            PropagateError: the method's extractor cannot be built.
        """
        try:
            message: Outcome | PropagateError | None = self.connection.recv()
        except (EOFError, OSError):
            self.is_alive = False
            self._process.join()
            remove_unfinished(task.folder)
            return Outcome(task, None, f"Its process ended ({_ending(self._process.exitcode)}).")
        if isinstance(message, PropagateError):
            raise message
        return message

    def stop(self) -> None:
        """End it, whatever it does; nothing that it has finished is lost."""
        end(self._process)  # what it leaves is removed
        self.connection.close()


def _work(connection: Connection, benchmark: Benchmark, threads: int) -> None:
    """The life of a process: tasks come, outcomes go. It ends with the line, also where the parent was killed."""
    end_with_parent()
    forbid()  # the parent has fetched the weights
    with suppress(EOFError, OSError):
        while True:
            task: Task = connection.recv()
            try:
                task.method.prepare()
            except PropagateError as error:
                connection.send(error)
                return
            connection.send(run_clip(benchmark, task, threads=threads, on_frame=lambda: connection.send(None)))


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that start in this block hear neither Ctrl-C nor SIGTERM nor SIGHUP.

    All of these may go to every process of a terminal or a job; the parent hears them, and ends its processes. Blocked
    rather than ignored, so that the parent, too, misses none meanwhile.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which starts with the first process, and would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(process: BaseProcess) -> None:
    """Start a process that hears no signals, see `deaf`. Where this process is interrupted meanwhile, it is ended.

    Nobody else knows of it by then, and at its exit Python would wait for it for ever.
    """
    try:
        with deaf():
            process.start()
    except BaseException:
        end(process)
        raise


def end(process: BaseProcess) -> None:
    """End a process that `start` has started, if it has: it does not hear anything less."""
    if process.pid is not None:
        process.kill()
        process.join()


def end_with_parent() -> None:
    """End this process, which `multiprocessing` started, as soon as its parent is gone, whatever it is doing then."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
