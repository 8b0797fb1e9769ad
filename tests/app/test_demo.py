"""The demo on sample clips of its own: with a single key per cell, a picture that stands still is copied."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from propagate.formats import VideoWriter, write_mask
from propagate.types import Mask
from tests.app.conftest import HEIGHT, SMALL, WIDTH, picture, square_ids

STILL = 4
COPY = (*SMALL, "--set", "propagation.top_k=1")


@pytest.fixture
def samples(tmp_path):
    folder = tmp_path / "sample_videos"
    for name in ("bunny", "rendered"):
        (folder / name / "masks").mkdir(parents=True)
        with VideoWriter(folder / name / "clip.mp4", rate=10, crf=1) as video:
            for _ in range(STILL):
                video.write(picture(0))
        points = {"box_corner": [10, 18], "box_middle": [20, 28]}
        frames = [{"frame": i, "points": points} for i in range(STILL)]
        (folder / name / "keypoints.json").write_text(json.dumps({"names": list(points), "frames": frames}))
    write_mask(folder / "bunny" / "mask.png", Mask(square_ids(0)))
    for index in range(STILL):
        write_mask(folder / "rendered" / "masks" / f"{index:05d}.png", Mask(square_ids(0)))
    scene = {"objects": [{"id": 1, "name": "box", "keypoints": points}]}
    (folder / "rendered" / "scene.json").write_text(json.dumps(scene))
    return folder


def score(result, row):
    line = next(line for line in result.stdout.splitlines() if line.split()[:1] == [row])
    return [float(number) for number in line.split()[1:]]


def test_a_still_clip_scores_near_one_and_the_results_are_named(run, samples, tmp_path):
    out = tmp_path / "demo"
    result = run("demo", "--samples", samples, "-o", out, *COPY)
    assert result.exit_code == 0, result.output
    for row in ("box", "all"):
        similarity, correct = score(result, row)
        assert similarity > 0.9
        assert correct == 1.0
    runs = ["bunny_keypoints", "bunny_masks", "rendered_keypoints", "rendered_masks"]
    assert sorted(path.name for path in out.iterdir()) == runs
    last_lines = result.stdout.splitlines()[-4:]
    assert [line.strip() for line in last_lines] == [str(out / name / "overlay.mp4") for name in runs]


def test_the_given_frame_does_not_count(run, samples, tmp_path):
    # the truth of every other frame is nowhere near
    elsewhere = np.zeros((HEIGHT, WIDTH), np.uint8)
    elsewhere[:8, :8] = 1
    document = json.loads((samples / "rendered" / "keypoints.json").read_text())
    for index in range(1, STILL):
        write_mask(samples / "rendered" / "masks" / f"{index:05d}.png", Mask(elsewhere))
        document["frames"][index]["points"] = {"box_corner": [2, 60], "box_middle": None}
    (samples / "rendered" / "keypoints.json").write_text(json.dumps(document))
    result = run("demo", "--samples", samples, "-o", tmp_path / "demo", *COPY)
    assert score(result, "all") == [0.0, 0.0]


def test_missing_samples_say_where_to_get_them(run, tmp_path):
    result = run("demo", "--samples", tmp_path / "nowhere", "-o", tmp_path / "demo", *COPY)
    assert result.exit_code == 3
    assert "nowhere" in result.stderr
    assert "--samples" in result.stderr
    assert not (tmp_path / "demo").exists()


def test_an_output_that_holds_something_is_refused(run, samples, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("")
    result = run("demo", "--samples", samples, "-o", tmp_path / "demo", *COPY)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr


def test_memory_and_the_network_can_be_limited(run, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    arguments = ("demo", "--samples", samples, "-o", tmp_path / "demo", *COPY, "--offline", "--max-memory")
    result = run(*arguments, "1MB")
    assert result.exit_code == 5
    assert "max_memory = 1 MiB" in result.stderr
    assert not (tmp_path / "demo").exists()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert run(*arguments, "6G").exit_code == 0
    record = json.loads((tmp_path / "demo" / "bunny_masks" / "run.json").read_text())
    assert record["settings"]["max_memory"] == 6 * 10**9
