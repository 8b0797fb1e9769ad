"""The only place that starts worker processes.

They are spawned, not forked: a fork of a process with threads of torch or CUDA may hang. They ignore Ctrl-C, SIGTERM
and SIGHUP, which a terminal or a job sends to all of its processes: the parent receives them and ends its children.
They end with the parent even when it is killed, and download nothing: the parent has fetched the weights.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from propagate.weights.consent import forbid


@dataclass(frozen=True)
class Child:
    """A process and the connection to it, which closes when the process ends."""

    process: BaseProcess
    connection: Connection

    def ending(self) -> str:
        """Wait for the process and describe how it ended."""
        self.process.join()
        code = self.process.exitcode
        return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Kill the process if it has started, and close the connection."""
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
        self.connection.close()


@contextmanager
def children() -> Iterator[Callable[..., Child]]:
    """Yield `start(work, *arguments)`, which runs `work(connection, *arguments)` in a new process.

    All processes are killed when the block ends.
    """
    started: list[Child] = []

    def start(work: Callable[..., None], *arguments: Any) -> Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = Child(context.Process(target=_main, args=(work, theirs, arguments), daemon=True), ours)
        started.append(child)  # before it starts, as an interruption may come at any moment
        with _signals_blocked():
            child.process.start()
        theirs.close()
        return child

    try:
        yield start
    finally:
        for child in started:
            child.end()


def _main(work: Callable[..., None], connection: Connection, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    forbid()
    work(connection, *arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals for processes that start in this block. The parent receives pending signals afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it starts with the first process, and would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
