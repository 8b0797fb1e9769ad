"""Ctrl-C, sent to a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import av
import pytest
import typer

from propagate.app.terminal.console import Terminal, reporting
from propagate.app.terminal.interrupt import Interrupted, exit_code, stop_request
from propagate.features.rgb import ColorPatches
from propagate.formats import read_indexed_png
from tests.app.conftest import HEIGHT, SMALL, WIDTH, write_video

LONG = 3000


@pytest.mark.parametrize("command", ["segment", "track"])
def test_finished_frames_are_complete_files(tmp_path, mask, keypoints, command):
    clip, out = write_video(tmp_path / "long.mp4", frames=LONG), tmp_path / "out"
    label = ["-m", mask] if command == "segment" else ["-k", keypoints]
    arguments = [sys.executable, "-m", "propagate", command, clip, *label, "-o", out, "-q", *SMALL]
    process = subprocess.Popen([str(a) for a in arguments], stderr=subprocess.PIPE, text=True)
    # the overlay's temporary file is there when the first frame is in
    while process.poll() is None and not list(out.glob(".overlay.*")):
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 130, stderr
    assert f"of {LONG} finished" in stderr
    assert "Traceback" not in stderr
    record = json.loads((out / "run.json").read_text())
    done = record["frames_done"]
    assert record["status"] == "interrupted"
    assert 0 < done < LONG
    with av.open(str(out / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == done
    if command == "segment":
        masks = sorted((out / "masks").iterdir())
        assert [path.name for path in masks] == [f"{i:05d}.png" for i in range(done)]
        assert all(read_indexed_png(path).size == (HEIGHT, WIDTH) for path in masks)
        assert len((out / "confidence.csv").read_text().splitlines()) == 1 + done
    else:
        assert len(json.loads((out / "keypoints.json").read_text())["frames"]) == done
    assert not list(out.rglob(".*"))


def test_the_second_interrupt_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with stop_request(Terminal()) as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(Interrupted, match="at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_before_the_first_frame_leaves_nothing(run, clip, mask, tmp_path, monkeypatch):
    import propagate.app.running.run

    def interrupted(*_arguments, **_keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(propagate.app.running.run, "build_extractor", interrupted)
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "new" / "out", *SMALL)
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_ends_a_command_with_its_code(usual_signals, number, code):
    before = signal.getsignal(number)
    with pytest.raises(typer.Exit) as caught, reporting():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_library_that_turns_the_interrupt_into_its_own_error_changes_no_code(capsys):
    def clumsy():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("cannot load") from error

    with pytest.raises(typer.Exit) as caught, reporting():
        clumsy()
    assert caught.value.exit_code == 143
    assert "unexpected" not in capsys.readouterr().err


def test_a_process_that_ignores_sighup_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with reporting() as terminal, stop_request(terminal) as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupt.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_timeout_sends_twice_counts_once():
    terminal = Terminal()
    with stop_request(terminal) as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
    assert exit_code(terminal) == 143


def carried(clip, mask, out, observe):
    """Segment in this process, with something that is called after each frame; return the exit code."""

    class Observer:
        def __enter__(self):
            return lambda frame, _: observe(frame)

        def __exit__(self, *_):
            return None

    from propagate.app.options import Changes
    from propagate.app.running.inputs import open_input, read_mask
    from propagate.app.running.run import carry

    resolved = Changes(["video.short_side=64"], "cpu").resolve("rgb")
    try:
        with reporting() as terminal:
            reader = open_input(clip, resolved.settings, terminal)
            first = read_mask(mask, (HEIGHT, WIDTH), terminal)
            carry(reader, first, out, resolved, terminal, command="segment", observers=[Observer()])
    except typer.Exit as end:
        return end.exit_code
    return 0


def test_a_signal_after_the_last_frame_leaves_a_finished_record(clip, mask, tmp_path):
    def observe(frame):
        if frame.index == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    assert carried(clip, mask, tmp_path / "out", observe) == 143
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "finished"


def test_a_second_signal_while_the_frame_in_work_is_waited_for_changes_nothing(clip, mask, tmp_path, monkeypatch):
    extract, ignored = ColorPatches.__call__, []

    def slow(self, images, indices=None):
        time.sleep(0.4 if indices and indices[0] > 2 else 0)
        return extract(self, images, indices)

    def observe(frame):
        if frame.index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(ColorPatches, "__call__", slow)
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    assert carried(clip, mask, tmp_path / "out", observe) == 143
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], record["frames_done"]) == ("interrupted", 3)
    assert (tmp_path / "out" / "overlay.mp4").exists()
    assert not ignored


def test_the_third_signal_kills():
    program = """
import os, signal, time
from propagate.app.terminal.console import reporting
with reporting():
    for _ in range(3):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            print("goes on", flush=True)
        except KeyboardInterrupt:
            print("is stopped", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stdout.splitlines() == ["is stopped", "goes on"]
    assert "Traceback" not in done.stderr
