"""Shells that close, fill or share what a run writes to, each as a real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from propagate.app.terminal.streams import Stream
from tests.app.conftest import FRAMES, SMALL, write_video

PROGRAM = [sys.executable, "-m", "propagate"]


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which "$@" is the command; its exit code is that of the command, not of the pipe."""
    script = ["bash", "-o", "pipefail", "-c", line, "bash", *PROGRAM, *map(str, arguments)]
    return subprocess.run(script, capture_output=True, text=True, timeout=300)


def test_a_reader_that_leaves_and_a_full_disk_lose_no_result(clip, mask, keypoints, tmp_path):
    shells = {
        "head": ('"$@" 2>&1 | head -1', ["segment", clip, "-m", mask]),
        "true": ('"$@" | true', ["track", clip, "-k", keypoints]),
        "full": ('"$@" > /dev/full 2> /dev/full', ["segment", clip, "-m", mask]),
        "closed": ('"$@" >&- 2>&-', ["track", clip, "-k", keypoints]),
    }
    with ThreadPoolExecutor() as pool:
        runs = {
            name: pool.submit(shell, line, *arguments, "-o", tmp_path / name, *SMALL)
            for name, (line, arguments) in shells.items()
        }
    for name, (_, arguments) in shells.items():
        done = runs[name].result()
        assert done.returncode == 0, (name, done.stderr)
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert (record["status"], record["frames_done"]) == ("finished", FRAMES), name
        label = "confidence.csv" if "segment" in arguments else "keypoints.json"
        expected = {"run.json", "overlay.mp4", label, "masks" if "segment" in arguments else "keypoints.csv"}
        assert {path.name for path in (tmp_path / name).iterdir()} == expected


@pytest.mark.parametrize("arguments", [("config", "show", "rgb"), ("segment", "--help"), ("--version",)], ids=str)
def test_an_answer_that_cannot_be_written_is_an_error(arguments):
    done = shell('"$@" > /dev/full', *arguments)
    assert done.returncode == 3
    assert "No space left" in done.stderr


def test_two_at_once_into_one_folder_and_sigterm(mask, tmp_path):
    clip, out = write_video(tmp_path / "long.mp4", frames=3000), tmp_path / "out"
    arguments = [*PROGRAM, "segment", clip, "-m", mask, "-o", out, *SMALL]
    first = subprocess.Popen([str(a) for a in arguments], stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if "frames/s" in line:
            break
    second = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=300)
    assert second.returncode == 3
    assert f"Another run is writing into {out}" in second.stderr
    first.send_signal(signal.SIGTERM)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 143, stderr
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert len(list((out / "masks").iterdir())) == record["frames_done"] < 3000
    assert (out / "overlay.mp4").exists()
    assert not list(out.rglob(".*"))


def test_a_working_directory_that_was_removed(clip, mask, tmp_path):
    line = f'cd "$(mktemp -d -p {tmp_path})" && rmdir "$PWD" && "$@"'
    done = shell(line, "segment", clip, "-m", mask, "-o", tmp_path / "out", *SMALL)
    assert done.returncode == 3
    assert "The working directory no longer exists" in done.stderr


class _Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    flush = write

    def fileno(self) -> int:
        raise OSError

    encoding = "utf-8"


@pytest.mark.parametrize(
    ("error", "kept"), [(BrokenPipeError(32, "Broken pipe"), False), (OSError(28, "No space left on device"), True)]
)
def test_a_stream_says_why_text_is_lost_and_goes_on(error, kept):
    stream = Stream(_Broken(error))
    assert stream.write("text") == 4
    stream.flush()
    assert (stream.failure is error) is kept
    assert stream.encoding == "utf-8"
