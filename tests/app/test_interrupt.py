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

from propagate.app.console import Terminal
from propagate.app.interrupt import Interrupt, Stopped
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
