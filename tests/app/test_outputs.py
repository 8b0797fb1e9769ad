"""What the files of a run are called, and what a failing overlay costs."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propagate.app.running.outputs import picture_name
from propagate.formats import VideoWriter
from propagate.types import Frame
from tests.app.conftest import FRAMES, SMALL, picture

PIXELS = np.zeros((2, 2, 3), np.uint8)


def test_pictures_keep_their_names(run, mask, tmp_path):
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    names = [f"img {index}" for index in range(2)] + [os.fsdecode(b"z\xe9"), "z\x1b[31m"]
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(folder / f"{name}.png")
    result = run("segment", folder, "-m", mask, "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (out / "masks").iterdir()} == {f"{name}.png" for name in names}
    assert "\x1b" not in result.output
    recorded = json.loads((out / "run.json").read_text())["frame_names"]
    assert recorded["0"] == "img 0"
    assert {r"z\xe9", "z\x1b[31m"} < set(recorded.values())
    rows = (out / "confidence.csv").read_text().splitlines()
    assert rows[0] == "frame,object,confidence,name"
    assert rows[1].endswith(",img 0")


@pytest.mark.parametrize("name", [None, "", ".", "..", ".hidden", "a/b", "/abs", "..\\b", "a\0b", "x" * 300])
def test_a_frame_without_a_plain_name_has_its_number(name):
    assert picture_name(Frame(PIXELS, 7, 0.0, name)) == "00007"


def test_a_full_disk_in_the_overlay_costs_the_overlay_alone(run, clip, mask, tmp_path, monkeypatch):
    write, out = VideoWriter.write, tmp_path / "out"

    def full(self, pixels, time_s=None):
        write(self, pixels, time_s)
        if self._pts > 5000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(VideoWriter, "write", full)
    result = run("segment", clip, "-m", mask, "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert "note: overlay.mp4 was not written" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["confidence.csv", "masks", "run.json"]
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["frames_done"]) == ("finished", FRAMES)
    assert "overlay.mp4 was not written" in record["notes"][0]


def test_what_a_run_reads_is_not_replaced_by_its_results(run, clip, mask, keypoints, tmp_path):
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    video, points, late = out / "overlay.mp4", out / "keypoints.csv", out / "masks" / "00002.png"
    for source, path in ((clip, video), (keypoints, points), (mask, late), (mask, out / "masks" / "00000.png")):
        shutil.copy(source, path)
    before = {path: path.read_bytes() for path in (video, points, late)}
    for arguments in (
        ("segment", video, "-m", mask),
        ("track", clip, "-k", points),
        ("segment", clip, "-m", late),
        ("segment", out / "masks", "-m", mask),
    ):
        result = run(*arguments, "-o", out, "--overwrite", *SMALL)
        assert result.exit_code == 2, result.output
        assert "would replace the input" in result.stderr.replace("\n", " ")
    assert {path: path.read_bytes() for path in before} == before
    # the corrected mask of the first frame is its own result
    again = run("segment", clip, "-m", late, "--from-frame", 2, "--to-frame", 4, "-o", out, "--overwrite", *SMALL)
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("name", ["masks", "."])
def test_a_loop_of_links_in_place_of_a_folder_is_refused(run, clip, mask, tmp_path, name):
    place = Path(os.path.normpath(tmp_path / "out" / name))
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place)
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", "--overwrite", *SMALL)
    assert result.exit_code == 3
    assert str(tmp_path / "out") in result.stderr
