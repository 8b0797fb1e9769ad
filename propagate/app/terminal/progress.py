"""The progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from propagate.app.terminal.console import NORMAL, Terminal

_LINES = 10  # plain lines a run should give
_LONGEST_SILENCE_S = 30.0
_LINES_OF_A_RATE = 3


@runtime_checkable
class Advance(Protocol):
    """Moves the progress on."""

    def __call__(self, frames: int = 1) -> None:
        """So many frames more are done."""
        ...

    def describe(self, title: str) -> None:
        """What is being done now."""
        ...


@contextmanager
def progress(terminal: Terminal, title: str, total: int | None, *, unit: str = "frames") -> Iterator[Advance]:
    """Give a function that is called after each frame.

    Args:
        terminal: prints nothing if it is quiet.
        title: what is being done.
        total: number of frames, None where it is not known.
        unit: what they are, if not frames.
    """
    if terminal.verbosity < NORMAL:
        yield _Silence()
    elif terminal.err.is_terminal:
        with _bar(terminal, title, total, unit) as advance:
            yield advance
    else:
        yield _PlainLines(terminal, title, total, unit)


class _Silence:
    def __call__(self, frames: int = 1) -> None: ...

    def describe(self, title: str) -> None: ...


@contextmanager
def _bar(terminal: Terminal, title: str, total: int | None, unit: str) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
    from rich.text import Text

    class _Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            if not rate:
                return Text("starting", "dim")
            left = f", {_clock(task.remaining / rate)} left" if task.remaining is not None else ""
            return Text(f"{rate:.3g} {unit}/s{left}", "dim")

    class _Bar:
        def __init__(self, live: Progress, task: TaskID) -> None:
            self._live, self._task = live, task

        def __call__(self, frames: int = 1) -> None:
            self._live.advance(self._task, frames)

        def describe(self, title: str) -> None:
            self._live.update(self._task, description=title)

    # names of clips are text, not markup
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), MofNCompleteColumn(), _Rate())
    with Progress(*columns, console=terminal.err, transient=True) as live:
        yield _Bar(live, live.add_task(title, total=total))


class _PlainLines:
    """A line for every tenth of the frames, and at least every half minute.

    The rate is that of the last few lines: of two methods in one run the second may be a hundred times slower.
    """

    def __init__(self, terminal: Terminal, title: str, total: int | None, unit: str) -> None:
        self._terminal, self._title, self._total, self._unit = terminal, title, total, unit
        self._done = self._shown = 0
        self._last = time.monotonic()
        self._marks = deque([(self._last, 0)], maxlen=_LINES_OF_A_RATE)

    def describe(self, title: str) -> None:
        self._title = title

    def __call__(self, frames: int = 1) -> None:
        self._done += frames
        now = time.monotonic()
        tenth = self._total is not None and self._done * _LINES // self._total > self._shown * _LINES // self._total
        if not tenth and now - self._last < _LONGEST_SILENCE_S:
            return
        self._shown, self._last = self._done, now
        start, before = self._marks[0]
        self._marks.append((now, self._done))
        rate = (self._done - before) / max(now - start, 1e-9)
        total = "" if self._total is None else f"/{self._total}"
        left = "" if self._total is None else f", {_clock((self._total - self._done) / rate)} left"
        self._terminal.err.print(f"{self._title} {self._done}{total}, {rate:.3g} {self._unit}/s{left}", soft_wrap=True)


def _clock(seconds: float) -> str:
    """0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
