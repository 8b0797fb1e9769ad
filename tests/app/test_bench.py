from __future__ import annotations

import json

import pytest

from propagate.app.bench import benching
from propagate.benchmarks.speed.stage_times import STAGES
from tests.app.conftest import FRAMES, HEIGHT, WIDTH

TINY = ("--set", "video.short_side=64", "--device", "cpu", "--repeat", 2)


@pytest.fixture
def here(monkeypatch):
    """Memory is measured in this process, where shapes are checked."""
    monkeypatch.setattr(benching, "in_own_process", lambda work, on_frame: work(on_frame))


def test_json_and_nothing_else(run, here):
    generated = ("--size", "96x64", "--frames", 5, "--objects", 3)
    result = run("bench", "-c", "rgb", "-c", "rgb", *generated, *TINY, "--dense", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["clip"] == {"source": "generated clip", "frames": 5, "width": 96, "height": 64, "objects": 3}
    assert [config["name"] for config in found["configs"]] == ["rgb", "rgb (2)"]
    for config in found["configs"]:
        assert list(config["stages"]) == [*STAGES, "sum of the stages"]
        for timing in (*config["stages"].values(), config["end_to_end"]):
            assert len(timing["wall_runs"]) == len(timing["cpu_runs"]) == 2
            assert min(timing["wall_runs"]) <= timing["wall"] <= max(timing["wall_runs"])
            assert timing["wall"] > 0
        runs = [sum(config["stages"][stage]["wall_runs"][run] for stage in STAGES) for run in range(2)]
        assert config["stages"]["sum of the stages"]["wall_runs"] == pytest.approx(runs)
        assert config["frames_per_second"] == pytest.approx(1 / config["end_to_end"]["wall"])
        assert config["settings"]["video.short_side"] == 64
        assert config["peak_memory"] is None or config["peak_memory"] > 2**20
        dense = config["dense"]
        assert dense["largest_difference"] < 1e-5
        assert dense["times_as_fast"]["low"] <= dense["times_as_fast"]["median"] <= dense["times_as_fast"]["high"]
    first, second = found["configs"]
    (pair,) = found["times_as_fast_as_first"]
    assert (pair["config"], pair["first"]) == ("rgb (2)", "rgb")
    ratios = [
        one / other
        for one, other in zip(first["end_to_end"]["wall_runs"], second["end_to_end"]["wall_runs"], strict=True)
    ]
    assert pair["end to end"]["wall"] == pytest.approx(
        {"median": sum(ratios) / 2, "low": min(ratios), "high": max(ratios)}
    )


def test_a_table_of_a_given_clip(run, clip, mask):
    result = run("bench", clip, "-m", mask, "-c", "rgb", *TINY)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{clip}: {FRAMES} frames of {WIDTH}x{HEIGHT}, 1 object"
    for row in (*STAGES, "end to end", "frames/s", "peak MiB"):
        assert sum(line.strip().startswith(f"{row}  ") for line in lines) == 1
    assert "transfer, one frame" not in result.stdout


def test_a_clip_without_a_mask_gets_ellipses_and_no_more_frames_than_it_has(run, here, clip):
    result = run("bench", clip, "--objects", 2, "--frames", 3, "-c", "rgb", *TINY, "-q", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["clip"] | {"source": ""} == {
        "source": "",
        "frames": 3,
        "width": WIDTH,
        "height": HEIGHT,
        "objects": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "big"], 2, "--size big is no size"),
        (["--mask", "MASK"], 2, "--mask needs a VIDEO"),
        (["CLIP", "--size", "64x64"], 2, "has a size of its own"),
        (["CLIP", "--mask", "MASK", "--objects", "2"], 2, "the mask has its own"),
        (["--size", "32x24", "--objects", "100"], 2, "do not fit"),
        (["-c", "nope"], 2, "no such preset"),
        (["-c", "static"], 2, "no such preset"),
        (["nowhere.mp4"], 3, "nowhere.mp4"),
        (["--frames", "1"], 2, "--frames"),
    ],
)
def test_mistakes(run, here, clip, mask, arguments, code, message):
    given = {"CLIP": clip, "MASK": mask}
    result = run("bench", *(given.get(argument, argument) for argument in arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stdout == ""
