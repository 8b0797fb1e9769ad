"""Ctrl-C that lets the frame in work be finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from propagate.app.console import Terminal


class Stopped(KeyboardInterrupt):
    """A run that was interrupted and has said in its message what it leaves behind."""


class Interrupt:
    """While its block runs, the first Ctrl-C asks for a stop and the second one stops at once.

    Attributes:
        requested: a stop was asked for.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.requested = False
        self._terminal = terminal
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        # only the main thread may take signals; elsewhere (a notebook's worker) Ctrl-C is not ours
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._request)
        return self

    def _request(self, _signal: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise Stopped("Stopped at once: masks of finished frames are whole, other files were not finished.")
        self.requested = True
        self._terminal.note("Stopping after this frame. Ctrl-C again stops at once and drops the unfinished files.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
