from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.context import SpawnProcess

import pytest

from propagate.app.running.own_process import in_own_process
from propagate.errors import InputError, OutOfMemoryError, PropagateError


def _count_to_three(on_frame):
    for _ in range(3):
        on_frame()
    return os.getpid()


def _refuse(on_frame):
    on_frame()
    raise InputError("The file is no file.", "Give another.")


def _stumble(on_frame):
    raise ZeroDivisionError("by zero")


def _leave(on_frame):
    os._exit(3)


def _die(on_frame):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_work_is_done_elsewhere_and_its_frames_are_counted_here():
    frames = []
    found = in_own_process(_count_to_three, lambda: frames.append(os.getpid()))
    assert found != os.getpid()
    assert frames == [os.getpid()] * 3


def test_an_error_comes_back_as_it_was():
    with pytest.raises(InputError) as caught:
        in_own_process(_refuse, lambda: None)
    assert (caught.value.message, caught.value.remedy) == ("The file is no file.", "Give another.")


def test_what_nobody_thought_of_is_told_with_its_trace():
    with pytest.raises(PropagateError, match="ZeroDivisionError: by zero") as caught:
        in_own_process(_stumble, lambda: None)
    assert "_stumble" in caught.value.remedy


def test_a_process_that_dies_is_an_error():
    with pytest.raises(OutOfMemoryError, match="killed by SIGKILL"):
        in_own_process(_die, lambda: None)


def test_a_process_that_ends_is_an_error():
    with pytest.raises(PropagateError, match="exit code 3") as caught:
        in_own_process(_leave, lambda: None)
    assert not isinstance(caught.value, OutOfMemoryError)


def test_the_process_is_gone_when_the_user_interrupts():
    pids = []

    def interrupt() -> None:
        pids.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_own_process(_count_to_three, interrupt)
    assert pids == [1]


def test_a_signal_while_the_process_starts_ends_it(usual_signals, monkeypatch):
    begin = SpawnProcess.start

    def interrupted(process):
        begin(process)
        os.kill(os.getpid(), signal.SIGINT)  # blocked until it has started

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_own_process(_count_to_three, lambda: None)
    assert multiprocessing.active_children() == []
