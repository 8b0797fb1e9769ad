from __future__ import annotations

import json
import os

import numpy as np
from PIL import Image

from propagate.formats import read_keypoints
from tests.app.conftest import FRAMES, SMALL, picture


def test_every_file_is_there_and_the_points_move_with_the_square(run, clip, keypoints, tmp_path):
    out = tmp_path / "out"
    result = run("track", clip, "--keypoints", keypoints, "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["keypoints.csv", "keypoints.json", "overlay.mp4", "run.json"]
    for suffix in ("json", "csv"):
        first = read_keypoints(out / f"keypoints.{suffix}", frame=0)
        assert first.names == ("left", "middle")
        np.testing.assert_allclose(first.positions, [[12, 20], [20, 28]])
        last = read_keypoints(out / f"keypoints.{suffix}", frame=FRAMES - 1)
        moved = last.positions - first.positions
        np.testing.assert_allclose(moved, [[8 * (FRAMES - 1), 0]] * 2, atol=8)  # within a grid cell
    record = json.loads((out / "run.json").read_text())
    assert record["label"]["joints"] == ["left", "middle"]
    assert (record["status"], record["frames_done"]) == ("finished", FRAMES)


def test_keypoints_of_the_frame_that_is_read_first_are_taken(run, clip, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("frame,name,x,y\n0,tip,5,5\n3,tip,50,20\n")
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", "--from-frame", 3, *SMALL)
    assert result.exit_code == 0, result.output
    found = read_keypoints(tmp_path / "out" / "keypoints.json", frame=3)
    np.testing.assert_allclose(found.positions, [[50, 20]])


def test_of_a_file_of_several_frames_one_is_named_or_nothing_runs(run, clip, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("frame,name,x,y\n0,tip,5,5\n3,tip,50,20\n")
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 3
    assert "holds 2 annotated frames: 0, 3. One is used." in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
    result = run("track", clip, "-k", points, "--keypoints-frame", 3, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    found = read_keypoints(tmp_path / "out" / "keypoints.json", frame=0)
    np.testing.assert_allclose(found.positions, [[50, 20]])


def test_of_several_instances_one_is_named(run, clip, tmp_path):
    people = [{"id": i, "image_id": 1, "category_id": 1, "keypoints": [i, 10, 2]} for i in ("ann", 20)]
    people[0]["keypoints"][0] = 7
    category = {"id": 1, "keypoints": ["tip"]}
    points = tmp_path / "points.json"
    points.write_text(json.dumps({"images": [{"id": 1}], "annotations": people, "categories": [category]}))
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 3
    assert "--instance ann" in " ".join(result.output.split())
    result = run("track", clip, "-k", points, "--instance", 20, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    found = read_keypoints(tmp_path / "out" / "keypoints.json", frame=0)
    np.testing.assert_allclose(found.positions, [[20, 10]])


def test_keypoints_of_a_picture_are_found_by_its_name(run, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(1, 4):
        Image.fromarray(picture(number)).save(tmp_path / "frames" / f"{number:05d}.png")
    images = [{"id": number, "file_name": f"{number:05d}.png"} for number in range(1, 4)]
    annotation = {"image_id": 2, "category_id": 1, "keypoints": [20, 10, 2]}
    document = {"images": images, "annotations": [annotation], "categories": [{"id": 1, "keypoints": ["tip"]}]}
    (tmp_path / "points.json").write_text(json.dumps(document))
    arguments = ("track", tmp_path / "frames", "-k", tmp_path / "points.json", "-o", tmp_path / "out", *SMALL)
    result = run(*arguments, "--from-frame", 1)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [(entry["frame"], entry["name"]) for entry in document["frames"]] == [(1, "00002"), (2, "00003")]
    result = run(*arguments, "--from-frame", 2, "--overwrite")
    assert (result.exit_code, "the annotated picture is 00002, but the frame is 00003" in result.stderr) == (0, True)


def test_the_result_is_named_after_the_video(run, clip, keypoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("track", clip, "-k", keypoints, "--no-overlay", *SMALL).exit_code == 0
    assert (tmp_path / "clip_keypoints" / "keypoints.csv").is_file()


def test_a_tracked_result_is_the_start_of_the_next_run(run, clip, keypoints, tmp_path):
    run("track", clip, "-k", keypoints, "-o", tmp_path / "a", *SMALL)
    again = run("track", clip, "-k", tmp_path / "a" / "keypoints.json", "-o", tmp_path / "b", "--from-frame", 5, *SMALL)
    assert again.exit_code == 0, again.output
    start = read_keypoints(tmp_path / "b" / "keypoints.json", frame=5)
    np.testing.assert_allclose(start.positions, read_keypoints(tmp_path / "a" / "keypoints.json", frame=5).positions)


def test_memory_and_the_network_can_be_limited(run, clip, keypoints, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    out = tmp_path / "out"
    result = run("track", clip, "-k", keypoints, "-o", out, "--max-memory", "6GiB", "--offline", "-v", *SMALL)
    assert result.exit_code == 0, result.output
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["max_memory"] == 6 * 2**30
    total = record["memory"]["estimate"]["total"]
    assert f"Memory: about {total / 2**20:.0f} MiB (program" in result.stderr
    # 2 joints and the background, at 1 anchor and 7 predictions, on 8 x 12 cells
    assert record["memory"]["estimate"]["bank"] == 8 * 8 * 12 * (48 * 4 + 3 * 4 + (48 + 12))
