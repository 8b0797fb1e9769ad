"""Ctrl-C, SIGTERM and SIGHUP end a command the same way, with exit code 130, 143 or 129.

During propagation the first signal lets the current frame finish, and the second stops at once; elsewhere the first one
stops. While the command stops, the second signal changes nothing, and the third one kills the process. A process
started with SIGTERM or SIGHUP ignored, as by `nohup`, keeps ignoring it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from propagate.app.terminal.console import Terminal

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_KILLS = 3  # this signal and later ones
_REPEAT_S = 0.1  # `timeout` sends its signal to the process and to its group, so it arrives twice

_Handler = Callable[[int, FrameType | None], None]


class SignalInterrupt(KeyboardInterrupt):
    """A signal arrived.

    A subclass: once KeyboardInterrupt itself has left code run by a C extension, such as torch's during its import,
    Python ends the process by SIGINT, whatever the exit code.
    """


class Interrupted(KeyboardInterrupt):
    """An interrupted run; the message says what it leaves behind."""


def exit_code(terminal: Terminal) -> int:
    """Return 128 plus the signal's number, or Ctrl-C's if unknown."""
    return 128 + (terminal.signal or signal.SIGINT)


@contextmanager
def interruptible(terminal: Terminal) -> Iterator[None]:
    """Raise a KeyboardInterrupt for signals in this block, and record them in the terminal."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if _count(terminal, number) == 1:
            raise SignalInterrupt

    with _handling(interrupt):
        yield


@dataclass
class StopRequest:
    """A request to stop. Set `is_stopping` when you stop; further signals then change nothing."""

    requested: bool
    is_stopping: bool = False


@contextmanager
def stop_request(terminal: Terminal) -> Iterator[StopRequest]:
    """Let the first signal in this block ask for a stop, and the second one stop at once."""
    state = StopRequest(terminal.signal is not None)

    def request(number: int, _frame: FrameType | None) -> None:
        count = _count(terminal, number)
        if count == 1:
            state.requested = True
            terminal.note("Stopping after this frame. Ctrl-C again stops at once and drops the unfinished files.")
        elif count and not state.is_stopping:
            # once: an exception while threads are joined would make Python forget them
            state.is_stopping = True
            raise Interrupted("Stopped at once: masks of finished frames are complete, other files are not.")

    with _handling(request):
        yield state


def _count(terminal: Terminal, number: int) -> int:
    """Record a signal and return how many have arrived; 0 for a repetition of the same one."""
    now, times = time.monotonic(), terminal.signal_times
    if times and number != signal.SIGINT and number == terminal.signal and now - times[-1] < _REPEAT_S:
        return 0
    terminal.signal = terminal.signal or number
    times.append(now)
    if len(times) >= _KILLS:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return len(times)


@contextmanager
def _handling(handler: _Handler) -> Iterator[None]:
    """Install a signal handler. Ctrl-C is always handled: shells start background jobs with it ignored."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # only there may Python set handlers
        for number in SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
