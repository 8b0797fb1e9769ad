"""Bad input: one message with cause and remedy, the exit code, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import propagate.pipeline
import propagate.weights.locating
from propagate.errors import OutOfMemoryError
from propagate.formats import read_indexed_png, write_mask
from propagate.types import Mask
from tests.app.conftest import FRAMES, HEIGHT, SMALL, WIDTH, square_ids, write_video


def failed(result, code, *parts):
    assert result.exit_code == code, result.output
    for part in parts:
        assert part in result.stderr.replace("\n", " "), result.stderr
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.output
    return True


def test_missing_video(run, mask, tmp_path):
    out = tmp_path / "a" / "out"
    assert failed(run("segment", tmp_path / "no.mp4", "-m", mask, "-o", out, *SMALL), 3, "no.mp4 does not exist")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.mp4", b"these are my notes\n", "is a text file, not a video"),
        ("noise.mp4", bytes(range(256)) * 8, "is not a video"),
        ("empty.mp4", b"", "is empty (0 bytes)"),
    ],
)
def test_not_a_video(run, mask, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    assert failed(run("segment", tmp_path / name, "-m", mask, "-o", out, *SMALL), 3, name, message)
    assert not out.exists()


def test_zero_frames(run, mask, tmp_path):
    with av.open(str(tmp_path / "none.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()
    out = tmp_path / "out"
    assert failed(run("segment", tmp_path / "none.mkv", "-m", mask, "-o", out, *SMALL), 3, "none.mkv")
    assert not out.exists()


def test_a_folder_without_pictures(run, mask, tmp_path):
    (tmp_path / "frames").mkdir()
    result = run("segment", tmp_path / "frames", "-m", mask, "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "contains no pictures")


def test_missing_mask(run, clip, tmp_path):
    result = run("segment", clip, "-m", tmp_path / "no.png", "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "no.png does not exist")
    assert not (tmp_path / "out").exists()


def test_mask_of_the_wrong_size_names_both_and_the_option(run, clip, tmp_path):
    write_mask(tmp_path / "half.png", Mask(square_ids(0)[::2, ::2].copy()))
    result = run("segment", clip, "-m", tmp_path / "half.png", "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "48x32", "96x64", "--resize-mask")
    assert not (tmp_path / "out").exists()


def test_empty_mask(run, clip, tmp_path):
    write_mask(tmp_path / "empty.png", Mask(np.zeros((HEIGHT, WIDTH), np.uint8)))
    result = run("segment", clip, "-m", tmp_path / "empty.png", "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "empty.png has no object")
    assert not (tmp_path / "out").exists()


def test_mask_with_too_many_ids(run, clip, tmp_path):
    # 384 flat areas of 4x4 pixels, each of a color of its own
    colors = np.random.default_rng(0).choice(256**3 - 1, (HEIGHT // 4, WIDTH // 4), replace=False) + 1
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], 2).astype(np.uint8)
    Image.fromarray(rgb.repeat(4, 0).repeat(4, 1)).save(tmp_path / "many.png")
    result = run("segment", clip, "-m", tmp_path / "many.png", "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "many.png", "254")
    assert not (tmp_path / "out").exists()


def test_keypoints_outside_the_frame_are_kept_as_absent_and_said(run, clip, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("name,x,y\ninside,40,28\nfar,500,28\n")
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    assert "outside the 96x64 frame and therefore marked absent: far" in result.stderr
    document = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert document["names"] == ["inside", "far"]
    assert all(frame["points"]["far"] is None for frame in document["frames"])


def test_nan_keypoints_are_absent(run, clip, tmp_path):
    points = tmp_path / "points.json"
    points.write_text('{"names": ["a", "b"], "frames": [{"frame": 0, "points": {"a": [40, 28], "b": [NaN, NaN]}}]}')
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert all(frame["points"]["b"] is None for frame in document["frames"])
    assert all(frame["points"]["a"] is not None for frame in document["frames"])


def test_nothing_but_nan_keypoints(run, clip, tmp_path):
    points = tmp_path / "points.json"
    points.write_text('{"names": ["a"], "frames": [{"frame": 0, "points": {"a": [NaN, NaN]}}]}')
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "points.json", "no joint")
    assert not (tmp_path / "out").exists()


def test_unknown_key_in_a_keypoints_file(run, clip, tmp_path):
    points = tmp_path / "points.json"
    points.write_text('{"names": ["a"], "frmaes": [{"frame": 0, "points": {"a": [1, 2]}}]}')
    result = run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "points.json", "frmaes", "frames")


def test_keypoints_of_another_frame(run, clip, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("frame,name,x,y\n5,tip,50,20\n")
    assert failed(run("track", clip, "-k", points, "-o", tmp_path / "out", *SMALL), 3, "no keypoints of frame 0", "5")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("--config", "compct"), ("--config compct", "Did you mean compact?")),
        (("--config", "no.yaml"), ("--config no.yaml", "no such file")),
        (("--set", "propagation.topk=3"), ("propagation.topk", "Did you mean top_k?")),
        (("--set", "propagation.top_k=0"), ("propagation.top_k = 0",)),
        (("--set", "propagation.top_k"), ("not of the form",)),
        (("--config", "rgb", "--set", "features.colour=1"), ("features.colour", "no such option")),
        (("--config", "rgb", "--set", "features.name=rbg"), ("rbg", "Did you mean rgb?")),
        (("--config", "rgb", "--device", "gpu"), ("device gpu", "cpu")),
        (("--config", "rgb", "--device", "cuda:77"), ("device cuda:77 is not available", "cpu")),
        (("--config", "rgb", "--from-frame", FRAMES), ("--from-frame 8 is outside the video",)),
    ],
)
def test_unknown_preset_option_or_device(run, clip, mask, tmp_path, arguments, messages):
    assert failed(run("segment", clip, "-m", mask, "-o", tmp_path / "out", *arguments), 2, *messages)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [("--reader", "vlc"), ("--stride", "0"), ("--from-frame", "-1"), ("--colour", "1")]
)
def test_wrong_options_are_usage_errors(run, clip, mask, tmp_path, arguments):
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
    assert not (tmp_path / "out").exists()


def test_missing_weights(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    result = run("segment", clip, "-m", mask, "-o", out, "--set", f"features.weights={tmp_path / 'nowhere'}")
    assert failed(result, 4, "nowhere")
    assert not out.exists()


def test_output_folder_that_holds_something(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert failed(run("segment", clip, "-m", mask, "-o", out, *SMALL), 2, "is not empty", "--overwrite")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert run("segment", clip, "-m", mask, "-o", out, "--overwrite", *SMALL).exit_code == 0
    assert (out / "thesis.txt").read_text() == "mine"


def test_output_folder_that_cannot_be_written(run, clip, mask, tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "out"
    assert failed(run("segment", clip, "-m", mask, "-o", below, *SMALL), 3, "out cannot be written", "a file")
    assert failed(run("segment", clip, "-m", mask, "-o", tmp_path / "file", *SMALL), 3, "is a file, not a folder")


def test_full_disk_midway_keeps_what_is_finished(run, clip, mask, tmp_path, monkeypatch):
    saved = Image.Image.save

    def save(image, path, *arguments, **keywords):
        if "00003" in Path(path).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(image, path, *arguments, **keywords)

    monkeypatch.setattr(Image.Image, "save", save)
    out = tmp_path / "out"
    assert failed(run("segment", clip, "-m", mask, "-o", out, *SMALL), 3, "00003.png", "the disk is full", "Free some")
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    with av.open(str(out / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["frames_done"]) == ("failed", 3)
    assert not list(out.rglob(".*"))


def cut_short(tmp_path: Path) -> Path:
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * 0.9)])
    return path


def test_a_video_that_ends_early_gives_what_there_is_and_says_so(run, mask, tmp_path):
    out = tmp_path / "out"
    result = run("segment", cut_short(tmp_path), "-m", mask, "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr
    assert "ends early" in result.stderr
    done = len(list((out / "masks").iterdir()))
    assert 1 <= done < FRAMES
    record = json.loads((out / "run.json").read_text())
    assert record["frames_done"] == done
    assert "ends early" in record["notes"][0]


def test_a_video_that_ends_early_is_an_error_with_strict(run, mask, tmp_path):
    out = tmp_path / "out"
    assert failed(run("segment", cut_short(tmp_path), "-m", mask, "-o", out, "--strict", *SMALL), 3, "ends early")
    assert not out.exists()


def transport_stream(path: Path, height: int, width: int, start: int) -> bytes:
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(start, start + 4):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 20 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("command", ["segment", "track"])
def test_a_size_that_changes_midway_keeps_what_is_finished(run, mask, keypoints, tmp_path, command):
    clip, out = tmp_path / "changing.ts", tmp_path / "out"
    parts = [transport_stream(tmp_path / "a.ts", HEIGHT, WIDTH, 0), transport_stream(tmp_path / "b.ts", 48, 80, 4)]
    clip.write_bytes(b"".join(parts))
    label = ("-m", mask) if command == "segment" else ("-k", keypoints)
    result = run(command, clip, *label, "-o", out, *SMALL)
    assert failed(result, 3, "frame 4 is 80x48", "96x64", "4 frames finished before the failure")
    if command == "segment":
        assert [read_indexed_png(out / "masks" / f"0000{i}.png").size for i in range(4)] == [(HEIGHT, WIDTH)] * 4
    else:
        assert len(json.loads((out / "keypoints.json").read_text())["frames"]) == 4
    with av.open(str(out / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["frames_done"]) == ("failed", 4)


def test_a_folder_with_mixed_sizes_names_the_file(run, mask, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(3):
        size = (40, 40) if index == 2 else (WIDTH, HEIGHT)
        Image.new("RGB", size, (index, 90, 20)).save(frames / f"{index}.png")
    result = run("segment", frames, "-m", mask, "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, "2.png (frame 2) is 40x40")
    assert not (tmp_path / "out").exists()


def failing_step(error):
    def step(*_arguments, **_keywords):
        raise error

    return step


def test_out_of_memory(run, clip, mask, tmp_path, monkeypatch):
    monkeypatch.setattr(propagate.pipeline.LabelPropagator, "step", failing_step(MemoryError()))
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", *SMALL)
    assert failed(result, OutOfMemoryError.exit_code, "Memory ran out", "video.short_side")
    assert OutOfMemoryError.exit_code == 5


def test_a_memory_limit_that_is_too_little(run, clip, mask, tmp_path):
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", "--max-memory", "1MB", *SMALL)
    assert failed(result, OutOfMemoryError.exit_code, "max_memory = 1 MiB", "memory bank", "short_side")
    assert not (tmp_path / "out").exists()


def test_frames_too_small_for_the_features(run, clip, mask, tmp_path):
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", "--set", "video.short_side=16")
    assert failed(result, 2, "video.short_side = 16", "at least 32 pixels")
    assert not (tmp_path / "out").exists()


def test_offline_downloads_nothing(run, clip, mask, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(propagate.weights.locating, "fetch", failing_step(AssertionError("went to the network")))
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", "--config", "dift_sd_davis", "--offline")
    assert failed(result, 4, "downloads are off (offline)")
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_unexpected_is_one_line_and_the_traceback_needs_vv(run, clip, mask, tmp_path, monkeypatch):
    monkeypatch.setattr(propagate.pipeline.LabelPropagator, "step", failing_step(ZeroDivisionError("by nought")))
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "a", *SMALL)
    assert failed(result, 1, "ZeroDivisionError: by nought", "-vv")
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "b", "-vv", *SMALL)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "failing_step" in result.stderr or "in step" in result.stderr


def test_a_file_that_cannot_be_finished_either_is_named(run, clip, mask, tmp_path, monkeypatch):
    monkeypatch.setattr(propagate.pipeline.LabelPropagator, "step", failing_step(ZeroDivisionError("by nought")))
    replace = Path.replace

    def full(path, target):
        if Path(target).name == "overlay.mp4":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    out = tmp_path / "out"
    result = run("segment", clip, "-m", mask, "-o", out, *SMALL)
    assert failed(result, 1, "by nought", "1 frame finished before the failure", "overlay.mp4 cannot be written")
    assert len((out / "confidence.csv").read_text().splitlines()) == 2


def test_a_path_that_is_too_long_for_the_file_system(run, clip, mask, tmp_path):
    long = tmp_path / ("x" * 300)
    assert failed(run("segment", clip, "-m", mask, "-o", long, *SMALL), 3, "is too long for the file system")
    preset = long.with_suffix(".yaml")
    assert failed(run("segment", clip, "-m", mask, "-o", tmp_path / "out", "-c", preset), 3, "is too long")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_place_of_a_result_is_known_before_the_first_frame(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    (out / "run.json").mkdir(parents=True)
    result = run("segment", clip, "-m", mask, "-o", out, "--overwrite", *SMALL)
    assert result.exit_code == 3
    assert f"{out / 'run.json'} is a folder" in result.stderr
    assert [path.name for path in out.iterdir()] == ["run.json"]


def test_the_video_may_lie_where_an_overlay_is_not_written(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    video = clip.rename(out / "overlay.mp4")
    before = video.read_bytes()
    refused = run("segment", video, "-m", mask, "-o", out, "--overwrite", *SMALL)
    assert refused.exit_code == 2
    assert "would replace" in refused.stderr
    assert run("segment", video, "-m", mask, "-o", out, "--overwrite", "--no-overlay", *SMALL).exit_code == 0
    assert video.read_bytes() == before
