from __future__ import annotations

import io

import pytest
from rich.console import Console

from propagate.app.terminal.console import NORMAL, QUIET, Terminal
from propagate.app.terminal.progress import _clock, progress


def terminal(verbosity=NORMAL, live=False):
    printed = io.StringIO()
    made = Terminal(verbosity)
    made.err = Console(file=printed, force_terminal=live, width=100)
    return made, printed


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (725, "12:05"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert _clock(seconds) == text


def test_ten_lines_whatever_the_length():
    made, printed = terminal()
    with progress(made, "segment", 200) as advance:
        for _ in range(200):
            advance()
    lines = printed.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"segment {20 * n}/200" for n in range(1, 11)]
    assert lines[-1].endswith("0:00 left")


def test_a_terminal_gets_a_bar_that_leaves_nothing():
    made, printed = terminal(live=True)
    with progress(made, "segment", 3) as advance:
        for _ in range(3):
            advance()
    assert "segment" in printed.getvalue()
    assert "3/3" in printed.getvalue()
    assert printed.getvalue().endswith("\x1b[2K")  # the line is erased


def test_quiet_is_quiet():
    made, printed = terminal(QUIET)
    with progress(made, "segment", 3) as advance:
        advance()
    assert printed.getvalue() == ""


def test_the_time_left_goes_by_the_last_lines(monkeypatch):
    made, printed = terminal()
    clock = iter([0.0, *(0.001 * n for n in range(1, 101)), *(0.1 + 1.0 * n for n in range(1, 101))])
    monkeypatch.setattr("propagate.app.terminal.progress.time.monotonic", lambda: next(clock))
    with progress(made, "flow, then compact", 200) as advance:
        for _ in range(200):
            advance()
    *_, before, _ = printed.getvalue().splitlines()
    assert before.endswith("180/200, 1 frames/s, 0:20 left")


def test_lines_say_what_is_done_and_frames_can_be_skipped():
    made, printed = terminal()
    with progress(made, "starting", 20) as advance:
        for title in ("static dog (1/2)", "static swan (2/2)"):
            advance.describe(title)
            advance(10)
    assert [line.split(",")[0] for line in printed.getvalue().splitlines()] == [
        "static dog (1/2) 10/20",
        "static swan (2/2) 20/20",
    ]


def test_the_bar_says_what_is_done_as_it_is_written():
    made, printed = terminal(live=True)
    with progress(made, "starting", 20) as advance:
        advance.describe("static [dog] (1/2)")
        advance(20)
    assert "static [dog] (1/2)" in printed.getvalue()
    assert "20/20" in printed.getvalue()
