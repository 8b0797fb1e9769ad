"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from propagate.app.terminal.console import NORMAL, Terminal

_LINES = 10  # plain lines per run
_MAX_SILENCE_S = 30.0
_RATE_LINES = 3


class Advance:
    """Counts finished frames; this base class prints nothing."""

    def __call__(self, frames: int = 1) -> None:
        """Count finished frames."""

    def describe(self, title: str) -> None:
        """Change the title."""


@contextmanager
def progress(terminal: Terminal, title: str, total: int | None, *, unit: str = "frames") -> Iterator[Advance]:
    """Show progress during the block, unless quiet; yield a function to call after each frame."""
    if terminal.verbosity < NORMAL:
        yield Advance()
    elif terminal.err.is_terminal:
        # names of clips are text, not markup
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), MofNCompleteColumn())
        with Progress(*columns, _Rate(unit), console=terminal.err, transient=True) as live:
            yield _Bar(live, title, total)
    else:
        yield _PlainLines(terminal, title, total, unit)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        if not rate:
            return Text("starting", "dim")
        left = f", {_clock(task.remaining / rate)} left" if task.remaining is not None else ""
        return Text(f"{rate:.3g} {self._unit}/s{left}", "dim")


class _Bar(Advance):
    def __init__(self, live: Progress, title: str, total: int | None) -> None:
        self._live, self._task = live, live.add_task(title, total=total)

    def __call__(self, frames: int = 1) -> None:
        self._live.advance(self._task, frames)

    def describe(self, title: str) -> None:
        self._live.update(self._task, description=title)


class _PlainLines(Advance):
    """Print a line for every tenth of the frames, and at least every half minute.

    The rate covers the last few lines: the second of two methods may be a hundred times slower.
    """

    def __init__(self, terminal: Terminal, title: str, total: int | None, unit: str) -> None:
        self._terminal, self._title, self._total, self._unit = terminal, title, total, unit
        self._done = self._shown = 0
        self._last = time.monotonic()
        self._marks = deque([(self._last, 0)], maxlen=_RATE_LINES)

    def describe(self, title: str) -> None:
        self._title = title

    def __call__(self, frames: int = 1) -> None:
        self._done += frames
        now, total = time.monotonic(), self._total
        if now - self._last < _MAX_SILENCE_S and (
            total is None or self._done * _LINES // total == self._shown * _LINES // total
        ):
            return
        self._shown, self._last = self._done, now
        start, before = self._marks[0]
        self._marks.append((now, self._done))
        rate = (self._done - before) / max(now - start, 1e-9)
        count, left = (f"/{total}", f", {_clock((total - self._done) / rate)} left") if total is not None else ("", "")
        self._terminal.err.print(f"{self._title} {self._done}{count}, {rate:.3g} {self._unit}/s{left}", soft_wrap=True)


def _clock(seconds: float) -> str:
    """0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
