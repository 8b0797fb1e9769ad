"""Ctrl-C, SIGTERM and SIGHUP: they end a command the same way, with exit code 130, 143 or 129.

While frames are carried the first one lets the frame in work be finished, and the second one stops at once; anywhere
else the first one stops. While a stop is under way the second one changes nothing; the third one kills the process,
whatever it is doing. A process that was started with SIGTERM or SIGHUP ignored, as `nohup` does, keeps ignoring it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from propagate.app.terminal.console import Terminal

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_KILLS = 3  # this signal and those after it
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
        if _counted(terminal, number) == 1:
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
        is_heeded: to be set by who stops: from then on the second one changes nothing.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.requested, self.is_heeded = terminal.signal is not None, False
        self._terminal = terminal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        self._before = _handle(self._request)
        return self

    def _request(self, number: int, _frame: FrameType | None) -> None:
        count = _counted(self._terminal, number)
        if count == 1:
            self.requested = True
            self._terminal.note("Stopping after this frame. Ctrl-C again stops at once and drops the unfinished files.")
        elif count and not self.is_heeded:
            # once: an exception while threads are joined would make Python forget them
            self.is_heeded = True
            raise Stopped("Stopped at once: masks of finished frames are whole, other files were not finished.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._before)


def _counted(terminal: Terminal, number: int) -> int:
    """How many signals have come, of which the terminal knows the first; 0 for the same one again."""
    now, times = time.monotonic(), terminal.signal_times
    if times and number != signal.SIGINT and number == terminal.signal and now - times[-1] < _SAME_S:
        return 0
    terminal.signal = terminal.signal or number
    times.append(now)
    if len(times) >= _KILLS:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return len(times)


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
