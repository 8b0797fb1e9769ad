"""Ctrl-C, sent to a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import av
import pytest
import typer

from propagate.app.console import Terminal, reporting
from propagate.app.interrupt import Interrupt, Stopped, exit_code
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
    with Interrupt(Terminal()) as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(Stopped, match="at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_before_the_first_frame_leaves_nothing(run, clip, mask, tmp_path, monkeypatch):
    import propagate.app.run

    def interrupted(*_arguments, **_keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(propagate.app.run, "build_extractor", interrupted)
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "new" / "out", *SMALL)
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_ends_a_command_with_its_code(number, code):
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
        with reporting() as terminal, Interrupt(terminal) as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupt.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_timeout_sends_twice_counts_once():
    terminal = Terminal()
    with Interrupt(terminal) as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
    assert exit_code(terminal) == 143


def test_a_signal_after_the_last_frame_leaves_a_finished_record(run, clip, mask, tmp_path):
    class Last:
        def __enter__(self):
            return lambda frame, _: os.kill(os.getpid(), signal.SIGTERM) if frame.index == 7 else None

        def __exit__(self, *_):
            return None

    from propagate.app.options import resolve_settings
    from propagate.app.run import carry, open_input, read_first_mask

    resolved = resolve_settings("rgb", ["video.short_side=64"], device="cpu")

    def carried():
        with reporting() as terminal:
            reader = open_input(clip, resolved.settings, terminal)
            first = read_first_mask(mask, reader.info, terminal, resize=False)
            carry(reader, first, tmp_path / "out", resolved, terminal, command="segment", observers=[Last()])

    with pytest.raises(typer.Exit) as caught:
        carried()
    assert caught.value.exit_code == 143
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "finished"
