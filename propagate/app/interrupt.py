"""Ctrl-C, SIGTERM and SIGHUP: they end a command the same way, with exit code 130, 143 or 129.

While frames are carried the first one lets the frame in work be finished, and the second one stops at once; anywhere
else the first one stops. A process that was started with SIGTERM or SIGHUP ignored, as `nohup` does, keeps ignoring it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from propagate.app.console import Terminal

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_SAME_S = 0.1  # `timeout` sends its signal to the process and to its group, so that it comes twice

_Handler = Callable[[int, FrameType | None], None]


class Signalled(KeyboardInterrupt):
    """A signal has come.

    Not KeyboardInterrupt itself: once that very type has left code that a C extension runs, such as torch's while it is
    imported, Python ends the process by SIGINT in the end, whatever the exit code is.
    """


class Stopped(KeyboardInterrupt):
    """A run that was interrupted and has said in its message what it leaves behind."""


def exit_code(terminal: Terminal) -> int:
    """Of a command that a signal ended: 128 and its number; Ctrl-C's where none was noticed."""
    return 128 + (terminal.signal or signal.SIGINT)


@contextmanager
def stopping(terminal: Terminal) -> Iterator[None]:
    """In this block the signals raise a KeyboardInterrupt, and the terminal knows which one it was."""

    def stop(number: int, _frame: FrameType | None) -> None:
        terminal.signal = terminal.signal or number
        raise Signalled

    before = _handle(stop)
    try:
        yield
    finally:
        _restore(before)


class Interrupt:
    """While its block runs, the first signal asks for a stop and the second one stops at once.

    Attributes:
        requested: a stop was asked for, in this block or before it.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.requested = terminal.signal is not None
        self._terminal = terminal
        self._first_s = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        self._before = _handle(self._request)
        return self

    def _request(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested:
            if number != signal.SIGINT and number == self._terminal.signal and now - self._first_s < _SAME_S:
                return
            raise Stopped("Stopped at once: masks of finished frames are whole, other files were not finished.")
        self.requested, self._first_s = True, now
        self._terminal.signal = number
        self._terminal.note("Stopping after this frame. Ctrl-C again stops at once and drops the unfinished files.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._before)


def _handle(handler: _Handler) -> dict[int, Any]:
    """Take the signals; return who had them. Ctrl-C is always taken: a shell's background jobs start without it."""
    # only the main thread may take signals; elsewhere (a notebook's worker) they are not ours
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler)
        for number in SIGNALS
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    }


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
