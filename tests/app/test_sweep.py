from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from propagate.app.evaluate.clips import finished_already
from propagate.benchmarks.davis.clips import load_davis
from propagate.errors import WeightsError
from propagate.features.rgb import ColorPatches
from propagate.formats import write_mask
from propagate.types import Mask
from propagate.weights.request import Wanted
from tests.app.conftest import picture, square_ids

FRAMES = 5
COMBINATIONS = [f"propagation.top_k={k},propagation.radius={r}" for k in (1, 5) for r in (0, 4)]


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """DAVIS with two clips of five frames; the second runs backwards."""
    root = tmp_path / "DAVIS"
    for name, order in (("there", range(FRAMES)), ("back", range(FRAMES)[::-1])):
        pictures, masks = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)
        for position, index in enumerate(order):
            Image.fromarray(picture(index)).save(pictures / f"{position:05d}.jpg", quality=95)
            write_mask(masks / f"{position:05d}.png", Mask(square_ids(index)))
    return root


@pytest.fixture
def sweep(run, davis, tmp_path):
    def invoke(*arguments: object, device: tuple[str, ...] = ("--device", "cpu")):
        data = ("--data", davis, "--year", "2017", "--sequence", "there", "--sequence", "back")
        small = ("--config", "rgb", "--set", "video.short_side=64", *device, "--threads", "1")
        return run("sweep", "davis", *data, *small, "-o", tmp_path / "out", *arguments)

    return invoke


GRID = ("--set", "propagation.top_k=1,5", "--set", "propagation.radius=0,4")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_combinations_share_the_features_of_a_cache(sweep, tmp_path, monkeypatch):
    computed = []
    call = ColorPatches.__call__

    def counting(self, images, indices=None):
        computed.extend([len(images)] if type(images) is torch.Tensor else [])
        return call(self, images, indices)

    monkeypatch.setattr(ColorPatches, "__call__", counting)
    result = sweep(*GRID, "--cache", tmp_path / "cache", "--cache-size", "1GB")
    assert result.exit_code == 0, result.output
    # pictures are told apart by content and place in the clip: the middle one is the same in both
    assert sum(computed) == 2 * FRAMES - 1
    cached = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.png") if path.parent.name == "there"}
    assert sweep(*GRID, "--overwrite").exit_code == 0
    plain = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.png") if path.parent.name == "there"}
    assert plain == cached
    assert cached
    assert sweep(*GRID, "--overwrite", "--cache-size", "1GB").exit_code == 2


def test_every_combination_is_run_scored_and_drawn(sweep, davis, tmp_path):
    result = sweep(*GRID)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(COMBINATIONS)
    benchmark = load_davis(davis, year=2017, sequences=("there", "back"))
    rows = table(out)
    assert [(row["propagation.top_k"], row["propagation.radius"]) for row in rows] == [
        ("1", "0"),
        ("1", "4"),
        ("5", "0"),
        ("5", "4"),
    ]
    for name, row in zip(COMBINATIONS, rows, strict=True):
        totals = benchmark.score(out / name).totals
        assert {metric: float(row[metric]) for metric in totals} == pytest.approx(totals, abs=5e-7)
        assert row["failed"] == ""
    standing, moving = (float(row["J&F"]) for row in rows[:2])
    assert moving > standing + 0.1  # without a window to move in, labels stay where they are
    with Image.open(out / "sweep.png") as drawn:
        assert min(drawn.size) > 200
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    best = max(rows, key=lambda row: float(row["J&F"]))
    expected = f"best: propagation.top_k={best['propagation.top_k']},propagation.radius={best['propagation.radius']}"
    assert expected in result.output
    assert all(f"{100 * float(row['J&F']):.1f}" in result.output for row in rows)


def test_one_finished_clip_is_spoken_of_as_one():
    assert [finished_already(count) for count in (1, 2)] == [
        "1 clip is finished already.",
        "2 clips are finished already.",
    ]


def test_resumed_it_keeps_what_is_finished_and_gives_the_same_table(sweep, tmp_path):
    axis = ("--set", "propagation.top_k=1,5")
    assert sweep(*axis).exit_code == 0
    out = tmp_path / "out"
    first = (out / "sweep.csv").read_bytes()
    kept, lost = (out / f"propagation.top_k={k}" / "there" for k in (1, 5))
    stamps = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    (out / "sweep.csv").unlink()
    result = sweep(*axis, "--resume")
    assert result.exit_code == 0, result.output
    assert "3 clips are finished already" in result.output
    assert (out / "sweep.csv").read_bytes() == first
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == stamps


def test_a_grown_grid_goes_on_from_the_smaller_one(sweep, tmp_path):
    assert sweep("--set", "propagation.top_k=1,5").exit_code == 0
    small = table(tmp_path / "out")
    result = sweep("--set", "propagation.top_k=1,5,3", "--resume")
    assert result.exit_code == 0, result.output
    assert "4 clips are finished already" in result.output
    assert table(tmp_path / "out")[:2] == small


@pytest.mark.parametrize(("grid", "dropped"), [("1,3", "propagation.top_k=5"), ("3,4", "propagation.top_k=1")])
def test_a_grid_that_lacks_finished_combinations_drops_none(sweep, tmp_path, grid, dropped):
    assert sweep("--set", "propagation.top_k=1,5").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.csv")}
    result = sweep("--set", f"propagation.top_k={grid}", "--resume")
    assert result.exit_code == 2
    assert dropped in result.output
    assert "--overwrite" in result.output
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.csv")} == before


def test_memory_can_be_limited_and_downloads_forbidden(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    result = sweep("--set", "propagation.top_k=1,5", "--max-memory", "3GB", "--offline")
    assert result.exit_code == 0, result.output
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for k in (1, 5):
        record = json.loads((tmp_path / "out" / f"propagation.top_k={k}" / "there" / "run.json").read_text())
        assert record["settings"]["max_memory"] == 3 * 10**9


def test_weights_are_fetched_once_before_any_clip_is_run(sweep, monkeypatch):
    events = []

    def refuse(*_arguments, **_keywords):
        events.append("run")
        raise WeightsError("There are none.")

    monkeypatch.setattr("propagate.benchmarks.running.methods.obtain", lambda wanted: events.append({*wanted}))
    monkeypatch.setattr("propagate.benchmarks.running.sweep.run", refuse)
    result = sweep("--config", "dino_davis", "--set", "propagation.top_k=1,5", "--jobs", "2")
    assert result.exit_code == 4, result.output
    assert events == [{Wanted("dino-vits16")}, {Wanted("dino-vits16")}, "run", "run"]


def test_other_settings_are_not_mixed_with_finished_clips(sweep, tmp_path):
    axis = ("--set", "propagation.top_k=1,5")
    assert sweep(*axis).exit_code == 0
    result = sweep(*axis, "--set", "propagation.n_last=2", "--resume")
    assert result.exit_code == 2
    assert "propagation.n_last" in result.output


def test_a_failing_combination_is_shown_and_the_others_stay(sweep, tmp_path):
    result = sweep("--set", "features.device=cpu,cuda:99", device=())
    assert result.exit_code == 6, result.output
    good, bad = table(tmp_path / "out")
    assert float(good["J&F"]) > 0.5
    assert (bad["J&F"], bad["failed"]) == ("", "there back")
    assert "failed" in result.output
    assert "cuda:99" in result.output


def test_a_clip_that_cannot_be_read_fails_in_every_combination(sweep, davis, tmp_path):
    (davis / "JPEGImages" / "480p" / "back" / "00003.jpg").write_bytes(b"no picture")
    result = sweep("--set", "propagation.top_k=1,5")
    assert result.exit_code == 6, result.output
    assert "00003.jpg" in result.output
    assert [row["failed"] for row in table(tmp_path / "out")] == ["back", "back"]
    assert [row["J&F"] for row in table(tmp_path / "out")] == ["", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "propagation.top_k=5"), "No setting has several values"),
        (("--set", "propagation.top_k=1,0"), "propagation.top_k"),
        (("--set", "features.device=cpu,cuda"), "--device"),
        ((*GRID, "--set", "propagation.n_last=1,2"), "3 settings have several values"),
    ],
)
def test_what_is_no_grid_is_an_error_before_anything_is_written(sweep, tmp_path, arguments, message):
    result = sweep(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(sweep, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert sweep(*GRID).exit_code == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_every_data_set_can_be_swept(run):
    result = run("sweep", "--help")
    assert all(name in result.output for name in ("davis", "jhmdb", "badja"))
    for name in ("davis", "jhmdb", "badja"):
        assert run("sweep", name, "--help").exit_code == 0
