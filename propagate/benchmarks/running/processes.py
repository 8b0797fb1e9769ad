"""The one place that starts processes for work.

They are spawned, not forked: a fork of a process that has started threads, torch's or CUDA's, may hang. They ignore
Ctrl-C, SIGTERM and SIGHUP, which a terminal or a job sends to all of its processes: the parent gets them and ends its
children. They end with the parent, also where it is killed, and download nothing: the parent has fetched the weights.
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
    """A process and the line to it. The line ends when the process does."""

    process: BaseProcess
    connection: Connection

    def ending(self) -> str:
        """Wait for the end of a process that is ending, and return how it ended, in words."""
        self.process.join()
        code = self.process.exitcode
        return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Kill the process, where it has started, and close the line."""
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
        self.connection.close()


@contextmanager
def children() -> Iterator[Callable[..., Child]]:
    """Give a function that starts processes: `start(work, *arguments)` runs `work(connection, *arguments)` in one.

    All of them are ended when the block is left, whatever they do.
    """
    started: list[Child] = []

    def start(work: Callable[..., None], *arguments: Any) -> Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = Child(context.Process(target=_live, args=(work, theirs, arguments), daemon=True), ours)
        started.append(child)  # before it starts: an interruption may come at any moment after
        with _signals_blocked():
            child.process.start()
        theirs.close()
        return child

    try:
        yield start
    finally:
        for child in started:
            child.end()


def _live(work: Callable[..., None], connection: Connection, arguments: tuple[Any, ...]) -> None:
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
    """Processes that start in this block inherit the blocked signals. The parent gets those of meanwhile afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it starts with the first process, and would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
