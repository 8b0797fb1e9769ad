from __future__ import annotations

import csv
import json

import av
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

import propagate.app.running.run
from propagate.features.rgb import ColorPatches
from propagate.formats import read_indexed_png, write_mask
from propagate.types import Mask
from tests.app.conftest import FRAMES, HEIGHT, SMALL, WIDTH, square_ids


def overlay_frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_every_file_is_there_and_the_mask_follows_the_square(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    result = run("segment", clip, "--mask", mask, "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == ["confidence.csv", "masks", "overlay.mp4", "run.json"]
    assert sorted(path.name for path in (out / "masks").iterdir()) == [f"{i:05d}.png" for i in range(FRAMES)]
    for index in range(FRAMES):
        found, truth = read_indexed_png(out / "masks" / f"{index:05d}.png").ids == 1, square_ids(index) == 1
        assert (found & truth).sum() / (found | truth).sum() > 0.7
    np.testing.assert_array_equal(read_indexed_png(out / "masks" / "00000.png").ids, square_ids(0))
    for named in ("00000.png ... 00007.png", "overlay.mp4", "confidence.csv", "run.json"):
        assert named in result.stdout


@pytest.mark.parametrize("command", ["segment", "compare", "bench"])
def test_the_mask_among_the_frames_is_left_out(run, clip, mask, tmp_path, command):
    folder = tmp_path / "frames"
    folder.mkdir()
    with av.open(str(clip)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            frame.to_image().save(folder / f"{number:05d}.jpg", quality=95)
    inside = folder / "00000_first.png"
    inside.write_bytes(mask.read_bytes())
    configs = ["--config", "rgb"] if command == "segment" else ["--config", "rgb", "--config", "static"]
    if command == "bench":
        result = run(
            "bench", folder, "--mask", inside, "--config", "rgb", "--repeat", "1", "--set", "features.device=cpu"
        )
        assert result.exit_code == 0, result.output
        return
    result = run(command, folder, "--mask", inside, "-o", tmp_path / "out", *configs, "--set", "features.device=cpu")
    assert result.exit_code == 0, result.output
    assert "Not read as frames, because the command names them: 00000_first.png." in result.stderr
    place = tmp_path / "out" / ("masks" if command == "segment" else "rgb/masks")
    assert len(list(place.iterdir())) == FRAMES


def test_confidence_has_a_row_for_each_frame_and_object(run, clip, tmp_path):
    ids = square_ids(0)
    ids[48:60, 4:20] = 7
    write_mask(tmp_path / "two.png", Mask(ids))
    run("segment", clip, "--mask", tmp_path / "two.png", "-o", tmp_path / "out", *SMALL)
    with (tmp_path / "out" / "confidence.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["object"]) for row in rows] == [(str(i), o) for i in range(FRAMES) for o in ("1", "7")]
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)


def test_the_overlay_is_tinted_where_the_mask_is_and_nowhere_else(run, clip, mask, tmp_path):
    run("segment", clip, "--mask", mask, "-o", tmp_path / "out", *SMALL)
    frames, source = overlay_frames(tmp_path / "out" / "overlay.mp4"), overlay_frames(clip)
    assert len(frames) == FRAMES
    change = np.abs(frames[0].astype(int) - source[0]).max(axis=2)
    assert np.median(change[square_ids(0) == 1]) > 40
    assert np.median(change[square_ids(0) == 0]) < 10


def test_run_json_says_what_was_done_and_its_hash_is_the_same_the_next_time(run, clip, mask, tmp_path):
    records = []
    for name in ("a", "b", "other"):
        extra = ("--set", "propagation.top_k=3") if name == "other" else ()
        run("segment", clip, "--mask", mask, "-o", tmp_path / name, "--stride", 2, *extra, *SMALL)
        records.append(json.loads((tmp_path / name / "run.json").read_text()))
    first, second, other = records
    assert first["settings_hash"] == second["settings_hash"] != other["settings_hash"]
    assert first["status"] == "finished"
    assert first["frames_done"] == FRAMES // 2
    assert first["settings"]["video"]["stride"] == 2
    assert first["settings"]["features"]["device"] == "cpu"
    origins = first["origins"]
    assert (origins["video.stride"], origins["features.device"]) == ("--stride", "--device")
    assert (origins["features.name"], origins["video.short_side"]) == ("preset rgb", "--set")
    assert origins["propagation.top_k"] == "default"
    assert other["origins"]["propagation.top_k"] == "--set"
    assert first["input"]["path"] == str(clip)
    assert (first["input"]["width"], first["input"]["height"]) == (WIDTH, HEIGHT)
    assert first["reader"] == "pyav"
    assert first["device"] == "cpu"
    assert {"python", "propagate", "torch", "diffusers", "av", "opencv", "numpy"} <= first["versions"].keys()
    assert first["seconds_per_frame"] > 0


def test_same_settings_same_masks(run, clip, mask, tmp_path):
    for name in ("a", "b"):
        run("segment", clip, "--mask", mask, "-o", tmp_path / name, *SMALL)
    for index in range(FRAMES):
        a, b = (tmp_path / name / "masks" / f"{index:05d}.png" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()


def test_from_to_and_stride_choose_frames_and_keep_their_numbers(run, clip, mask, tmp_path):
    result = run(
        "segment", clip, "-m", mask, "-o", tmp_path / "out", "--from-frame", 1, "--to-frame", 7, "--stride", 2, *SMALL
    )
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names == ["00001.png", "00003.png", "00005.png"]


def test_options_of_the_command_line_win_over_the_preset(run, clip, mask, tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("video: {reader: decord, short_side: 64, stride: 4}\nfeatures: {name: rgb}\n")
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", "-c", preset, "--reader", "pyav", "--stride", 2)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["reader"], record["frames_done"]) == ("pyav", FRAMES // 2)


def test_soft_maps_come_with_the_name_of_each_channel(run, clip, mask, tmp_path):
    run("segment", clip, "-m", mask, "-o", tmp_path / "out", "--set", "output.soft=true", *SMALL)
    with np.load(tmp_path / "out" / "soft" / "00003.npz") as arrays:
        assert arrays["soft"].shape == (2, HEIGHT // 8, WIDTH // 8)
        assert arrays["channels"].tolist() == ["background", "1"]
    assert len(list((tmp_path / "out" / "soft").iterdir())) == FRAMES


def test_without_overlay_there_is_no_video(run, clip, mask, tmp_path):
    assert run("segment", clip, "-m", mask, "-o", tmp_path / "out", "--no-overlay", *SMALL).exit_code == 0
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_the_output_is_named_after_the_video(run, clip, mask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("segment", clip, "-m", mask, *SMALL).exit_code == 0
    assert (tmp_path / "clip_masks" / "run.json").is_file()


def test_a_mask_of_another_size_is_resized_on_request_and_said_so(run, clip, tmp_path):
    write_mask(tmp_path / "half.png", Mask(square_ids(0)[::2, ::2].copy()))
    out = tmp_path / "out"
    result = run("segment", clip, "-m", tmp_path / "half.png", "-o", out, "--resize-mask", *SMALL)
    assert result.exit_code == 0, result.output
    assert read_indexed_png(out / "masks" / "00000.png").size == (HEIGHT, WIDTH)
    assert "48x32" in result.stderr
    assert "resized" in json.loads((out / "run.json").read_text())["label"]["notes"][0]


def test_colors_are_mapped_to_objects_and_the_mapping_is_printed(run, clip, tmp_path):
    from PIL import Image

    colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colors[square_ids(0) == 1] = (255, 0, 0)
    Image.fromarray(colors).save(tmp_path / "drawn.png")
    result = run("segment", clip, "-m", tmp_path / "drawn.png", "-o", tmp_path / "out", *SMALL)
    assert "object 1" in result.stderr


def test_quiet_prints_nothing(run, clip, mask, tmp_path):
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", "-q", *SMALL)
    assert (result.exit_code, result.output) == (0, "")


def test_progress_is_plain_lines_where_there_is_no_terminal(run, clip, mask, tmp_path):
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", *SMALL)
    assert f"segment {FRAMES}/{FRAMES}, " in result.stderr
    assert "frames/s" in result.stderr
    assert "\x1b" not in result.stderr
    assert "\r" not in result.stderr


def test_overwriting_says_what_is_left_of_the_older_run(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    run("segment", clip, "-m", mask, "-o", out, *SMALL)
    result = run("segment", clip, "-m", mask, "-o", out, "--overwrite", "--to-frame", 6, *SMALL)
    assert result.exit_code == 0, result.output
    assert "2 files that this run did not write: masks/00006.png, masks/00007.png" in result.stderr


def test_a_memory_limit_is_recorded_and_changes_no_mask(run, clip, mask, tmp_path):
    run("segment", clip, "-m", mask, "-o", tmp_path / "a", *SMALL)
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "b", "--max-memory", "6GB", *SMALL)
    assert result.exit_code == 0, result.output
    a, b = (read_indexed_png(tmp_path / name / "masks" / "00007.png").ids for name in ("a", "b"))
    np.testing.assert_array_equal(a, b)
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert record["settings"]["max_memory"] == 6_000_000_000
    assert record["origins"]["max_memory"] == "--max-memory"


def test_a_gpu_that_runs_out_of_memory_is_a_note(run, clip, mask, tmp_path, monkeypatch):
    call = ColorPatches.__call__

    def small(self, images, indices=None):
        if len(images) > 2 and not isinstance(images, FakeTensor):  # the estimate's dry run takes no memory
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, images, indices)

    monkeypatch.setattr(ColorPatches, "__call__", small)
    monkeypatch.setattr("propagate.features.passes.is_on_cpu", lambda extractor: False)
    out = tmp_path / "out"
    result = run("segment", clip, "-m", mask, "-o", out, "--set", "features.batch_size=4", *SMALL)
    assert result.exit_code == 0, result.output
    assert "note: The GPU's memory ran out with 4 frames x 1 draw at a time" in result.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["frames_done"] == FRAMES
    assert len(record["notes"]) == 1
    assert "going on with 2 frames x 1 draw" in record["notes"][0]


def test_the_estimate_is_recorded_and_told_with_v(run, clip, mask, tmp_path):
    quiet = run("segment", clip, "-m", mask, "-o", tmp_path / "a", *SMALL)
    assert "Memory" not in quiet.stderr
    record = json.loads((tmp_path / "a" / "run.json").read_text())["memory"]
    parts = dict(record["estimate"])
    total, turns = parts.pop("total"), (parts.pop("activations"), parts.pop("transfer"))
    assert total == sum(parts.values()) + max(turns)
    assert (record["frames"], record["draws"]) == (1, 1)
    loud = run("segment", clip, "-m", mask, "-o", tmp_path / "b", "-v", *SMALL)
    assert f"Memory: about {total / 2**20:.0f} MiB" in loud.stderr
    assert "with 1 frame x 1 draw" in loud.stderr


def test_an_extractor_of_another_package_is_not_estimated_unless_there_is_a_limit(
    run, clip, mask, tmp_path, monkeypatch
):
    call = ColorPatches.__call__

    def looking(self, images, indices=None):
        assert float(images.mean()) > 0  # a tensor without content cannot be looked at
        return call(self, images, indices)

    monkeypatch.setattr(ColorPatches, "__call__", looking)
    monkeypatch.setattr(propagate.app.running.run, "EXTRACTORS", {})
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "a", *SMALL)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "a" / "run.json").read_text())["memory"] is None
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "b", "--max-memory", "6GB", *SMALL)
    assert result.exit_code == 2
    assert "ColorPatches" in result.stderr
    assert "Leave out max_memory" in result.stderr
    assert not (tmp_path / "b").exists()
