from __future__ import annotations

import csv
import json
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from propagate.app.compare import comparison
from propagate.benchmarks.comparison.contact_sheet import DISPUTED
from propagate.errors import WeightsError
from propagate.formats import read_indexed_png, read_keypoints
from propagate.metrics import region_similarity
from propagate.weights.request import Wanted
from tests.app.conftest import FRAMES, HEIGHT, WIDTH, square_ids
from tests.app.test_program import HELP

RGB = ("--set", "video.short_side=64", "--device", "cpu")


@pytest.fixture
def here(monkeypatch):
    """The runs happen in this process, where shapes are checked."""
    monkeypatch.setattr(comparison, "in_own_process", lambda work, on_frame: work(on_frame))


def test_weights_are_fetched_once_before_the_first_process(run, clip, mask, tmp_path, monkeypatch):
    events = []

    def refuse(_work, _on_frame):
        events.append("run")
        raise WeightsError("There are none.")

    monkeypatch.setattr("propagate.benchmarks.running.methods.obtain", lambda wanted: events.append({*wanted}))
    monkeypatch.setattr(comparison, "in_own_process", refuse)
    result = run("compare", clip, "-m", mask, "-c", "dino_davis", "-c", "static", *RGB, "-o", tmp_path / "out")
    assert result.exit_code == 4, result.output
    assert events == [{Wanted("dino-vits16")}, "run", "run"]


def test_a_reader_whose_memory_is_not_known_does_not_go_with_a_limit(run, clip, mask, tmp_path):
    limited = ("--max-memory", "3GB", "--reader", "decord", "-o", tmp_path / "out")
    result = run("compare", clip, "-m", mask, "-c", "static", "-c", "rgb", *RGB, *limited)
    assert result.exit_code == 2
    assert "--reader decord decodes ahead" in result.stderr


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_masks_side_by_side(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    result = run("compare", clip, "--mask", mask, "-c", "static", "-c", "rgb", *RGB, "-o", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert names == ["agreement.csv", "compare.mp4", "compare.png", "rgb", "static", "summary.json"]
    for name in ("static", "rgb"):
        assert sorted(path.name for path in (out / name).iterdir()) == ["confidence.csv", "masks", "run.json"]
        assert len(list((out / name / "masks").iterdir())) == FRAMES
        record = json.loads((out / name / "run.json").read_text())
        assert (record["status"], record["method"], record["frames_done"]) == ("finished", name, FRAMES)
    ids = [read_indexed_png(out / "rgb" / "masks" / f"{i:05d}.png").ids for i in range(FRAMES)]
    assert region_similarity(ids[5] == 1, square_ids(5) == 1) > 0.6

    # what a baseline that never moves and a preset that follows agree about, recomputed from their files
    expected = [region_similarity(square_ids(0) == 1, ids[i] == 1) for i in range(1, FRAMES)]
    rows = rows_of(out / "agreement.csv")
    assert [int(row["frame"]) for row in rows] == list(range(1, FRAMES))
    assert [(row["object"], row["config"], row["other"]) for row in rows] == [("1", "static", "rgb")] * (FRAMES - 1)
    np.testing.assert_allclose([float(row["J"]) for row in rows], expected, atol=1e-4)
    summary = json.loads((out / "summary.json").read_text())
    (pair,) = summary["agreement"]
    assert pair["mean"] == pytest.approx(np.mean(expected))
    static, rgb = summary["configs"]
    assert static["mean_confidence"] == 1
    assert static["agreement_with_others"] == rgb["agreement_with_others"] == pair["mean"]
    assert rgb["frames_per_second"] > 0
    assert f"{100 * pair['mean']:.1f} %" in result.stdout
    assert str(out / "compare.png") in result.stdout

    sheet = np.asarray(Image.open(out / "compare.png"))
    disputed = (sheet == DISPUTED).all(2).any(0)
    assert disputed.any()
    assert not disputed[: sheet.shape[1] // 8].any()  # the given frame is not disputed
    with av.open(str(out / "compare.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == FRAMES
    assert frames[0].shape[1] == 3 * WIDTH  # two results, and where they differ
    assert frames[0].shape[0] > HEIGHT  # names above


def test_keypoints_side_by_side(run, here, clip, keypoints, tmp_path):
    out = tmp_path / "out"
    result = run("compare", clip, "-k", keypoints, "-c", "static", "-c", "flow", "-c", "rgb", *RGB, "-o", out)
    assert result.exit_code == 0, result.output
    last = {name: read_keypoints(out / name / "keypoints.json", frame=FRAMES - 1) for name in ("static", "flow", "rgb")}
    rows = rows_of(out / "agreement.csv")
    assert len(rows) == 3 * (FRAMES - 1)
    summary = json.loads((out / "summary.json").read_text())
    tolerance = summary["tolerance_px"]
    assert tolerance == pytest.approx(0.02 * np.hypot(HEIGHT, WIDTH))
    for row in rows[-3:]:
        assert int(row["frame"]) == FRAMES - 1
        distances = np.hypot(*(last[row["config"]].positions - last[row["other"]].positions).T)
        assert float(row["median_distance_px"]) == pytest.approx(float(np.nanmedian(distances)), abs=0.02)
        assert float(row["share_within_tolerance"]) == pytest.approx(np.mean(distances <= tolerance), abs=1e-4)
    assert "2 % of the frame's diagonal" in summary["measure"]
    assert {config["name"] for config in summary["configs"]} == {"static", "flow", "rgb"}
    assert (out / "compare.png").is_file()
    assert (out / "compare.mp4").is_file()


def test_one_that_fails_is_told_and_the_others_are_compared(run, here, clip, mask, tmp_path):
    out = tmp_path / "out"
    result = run(
        *("compare", clip, "-m", mask, "-c", "static", "-c", "rgb", "-c", "flow", "--device", "cuda:99", "-o", out)
    )
    assert result.exit_code == 6, result.output
    assert "rgb: device cuda:99" in result.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert [config["name"] for config in summary["configs"]] == ["static", "flow"]
    assert "cuda:99" in summary["failed"]["rgb"]
    assert not list(out.glob("*rgb*"))


def test_all_of_them_fail(run, here, clip, mask, tmp_path):
    preset = tmp_path / "other.yaml"
    preset.write_text("features:\n  name: rgb\n")
    out = tmp_path / "new" / "out"
    result = run("compare", clip, "-m", mask, "-c", "rgb", "-c", preset, "--device", "cuda:99", "-o", out)
    assert result.exit_code == 2
    assert "cuda:99" in result.stderr
    assert not out.parent.exists()


def test_frames_that_are_read_are_the_same_for_all(run, here, clip, mask, tmp_path):
    out = tmp_path / "out"
    arguments = ("compare", clip, "-m", mask, "-c", "static", "-c", "flow", "-o", out, "-q")
    result = run(*arguments, "--stride", 3, "--to-frame", 7)
    assert result.exit_code == 0, result.output
    assert result.output == ""
    for name in ("static", "flow"):
        names = sorted(path.name for path in (out / name / "masks").iterdir())
        assert names == ["00000.png", "00003.png", "00006.png"]
    assert {int(row["frame"]) for row in rows_of(out / "agreement.csv")} == {3, 6}
    again = run(*arguments, "--overwrite", "--to-frame", 2)
    assert again.exit_code == 0, again.output
    assert sorted(path.name for path in (out / "flow" / "masks").iterdir()) == ["00000.png", "00001.png"]


def test_a_single_frame_has_nothing_to_agree_about(run, here, clip, mask, tmp_path):
    out = tmp_path / "out"
    result = run("compare", clip, "-m", mask, "-c", "static", "-c", "flow", "-o", out, "--to-frame", 1)
    assert result.exit_code == 0, result.output
    assert rows_of(out / "agreement.csv") == []
    assert json.loads((out / "summary.json").read_text())["agreement"][0]["mean"] is None


def test_an_interrupt_keeps_what_is_finished(run, clip, mask, tmp_path, monkeypatch):
    out = tmp_path / "out"
    done = []

    def interrupted(work, on_frame):
        if done:
            raise KeyboardInterrupt
        done.append(work(on_frame))
        return done[0]

    monkeypatch.setattr(comparison, "in_own_process", interrupted)
    result = run("compare", clip, "-m", mask, "-c", "static", "-c", "flow", "-o", out)
    assert result.exit_code == 130
    assert "1 of 2 configurations are finished" in result.stderr
    assert (out / "static" / "run.json").is_file()
    assert not (out / "flow").exists()
    assert not (out / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "MASK", "-c", "rgb"], 2, "rgb alone cannot be compared"),
        (["-m", "MASK", "-c", "rgb", "-c", "rgb"], 2, "given twice"),
        (["-c", "static", "-c", "flow"], 2, "Neither --mask"),
        (["-m", "MASK", "-k", "MASK", "-c", "static", "-c", "flow"], 2, "Both --mask"),
        (["-m", "MASK", "-c", "rgb", "-c", "flow", "--set", "video.stride=2"], 2, "Give --stride instead"),
        (["-m", "MASK", "-c", "static", "-c", "flow", "--set", "propagation.top_k=2"], 2, "have no settings"),
        (["-m", "MASK", "-c", "static", "-c", "flow", "--device", "cpu"], 2, "--device cpu: static and flow have no"),
        (["-k", "MASK", "--resize-mask", "-c", "static", "-c", "flow"], 2, "--resize-mask and --harden are for masks"),
        (["-m", "nowhere.png", "-c", "static", "-c", "flow"], 3, "nowhere.png does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(run, clip, mask, tmp_path, arguments, code, message):
    given = [mask if argument == "MASK" else argument for argument in arguments]
    result = run("compare", clip, *given, "-o", tmp_path / "new" / "out")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(run, clip, mask, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    result = run("compare", clip, "-m", mask, "-c", "static", "-c", "flow", "-o", out)
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    assert "--overwrite" in result.stderr
    assert "--resume" not in result.stderr
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_somebody_elses_file_is_not_replaced_and_nothing_is_run(run, here, clip, mask, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.png").write_text("mine")
    result = run("compare", clip, "-m", mask, "-c", "static", "-c", "flow", "-o", out, "--overwrite")
    assert result.exit_code == 2
    assert "compare.png" in result.stderr
    assert (out / "compare.png").read_text() == "mine"
    assert not (out / "static").exists()


@pytest.mark.parametrize("command", ["compare", "bench"])
def test_help_imports_nothing_heavy(command):
    script = HELP.format(arguments=[command, "--help"]).replace('"torch"', '"torch", "matplotlib"')
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


@pytest.mark.parametrize("read", ["compare.mp4", "rgb/masks/00000.png"])
def test_an_earlier_comparison_does_not_go_while_it_is_read(run, clip, mask, tmp_path, here, read):
    out = tmp_path / "out"
    compare = ("-c", "static", "-c", "rgb", *RGB, "-o", out)
    assert run("compare", clip, "-m", mask, *compare).exit_code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    video, label = (out / read, mask) if read.endswith(".mp4") else (clip, out / read)
    result = run("compare", video, "-m", label, "--resize-mask", *compare, "--overwrite")
    assert result.exit_code == 2, result.output
    assert f"The input {out / read} would be replaced" in " ".join(result.stderr.split())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
