"""`prompt_attention` on the command line: prompts are learned with progress, kept, and used again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from propagate.features.learned_prompts.prompt_file import LearnedPrompts
from propagate.formats import read_keypoints, read_mask
from tests.app.conftest import write_video
from tests.features.learned_prompts.tiny_attention import SD_TINY

STEPS = 10
TINY = [
    *("--config", "prompt_attention", "--device", "cpu"),
    *(part for option in ("video.short_side=64", f"features.weights={SD_TINY}") for part in ("--set", option)),
    *("--set", "features.layers=[[3, 0]]", "--set", "features.learning_rate=0.1", "--set", "features.sigma=0.15"),
    *("--set", f"features.steps={STEPS}", "--no-overlay"),
]


@pytest.fixture
def short(tmp_path):
    return write_video(tmp_path / "short.mp4", frames=3)


def test_keypoints_with_prompts_that_are_used_on_another_clip(run, short, keypoints, tmp_path):
    first = run("track", short, "-k", keypoints, "-o", tmp_path / "first", *TINY)
    assert first.exit_code == 0, first.output
    # two joints; a line at least for every tenth of the steps
    lines = [line for line in first.stderr.splitlines() if line.startswith("learning ")]
    assert lines[0].startswith("learning left, loss 0.")
    assert lines[-1].startswith("learning middle, loss 0.")
    assert f"{2 * STEPS}/{2 * STEPS}," in lines[-1]
    assert lines[-1].endswith(" steps/s, 0:00 left")
    prompts = tmp_path / "first" / "prompt.safetensors"
    assert str(prompts) in first.stdout
    assert read_keypoints(tmp_path / "first" / "keypoints.json", frame=0).names == ("left", "middle")

    clip = tmp_path / "clip.mp4"
    shutil.copy(short, clip)
    other = run(
        "track", clip, "-k", keypoints, "-o", tmp_path / "other", *TINY, "--set", f"features.embedding={prompts}"
    )
    assert other.exit_code == 0, other.output
    assert "learning" not in other.stderr
    assert not (tmp_path / "other" / "prompt.safetensors").exists()
    record = json.loads((tmp_path / "other" / "run.json").read_text())
    assert record["settings"]["features"]["embedding"] == str(prompts)
    assert record["frames_done"] == 3
    # the same frames, the same prompts: the same points
    for frame in (1, 2):
        found, expected = (
            read_keypoints(tmp_path / folder / "keypoints.json", frame=frame).positions for folder in ("other", "first")
        )
        np.testing.assert_array_equal(found, expected)


def test_a_mask(run, short, mask, tmp_path):
    out = tmp_path / "out"
    result = run("segment", short, "-m", mask, "-o", out, *TINY)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["confidence.csv", "masks", "prompt.safetensors", "run.json"]
    assert read_mask(out / "masks" / "00000.png").objects == (1,)
    assert len(list((out / "masks").iterdir())) == 3


def test_prompts_of_other_joints(run, short, keypoints, mask, tmp_path):
    learned = run("track", short, "-k", keypoints, "-o", tmp_path / "a", *TINY, "--set", "features.steps=1")
    assert learned.exit_code == 0, learned.output
    embedding = ("--set", f"features.embedding={tmp_path / 'a' / 'prompt.safetensors'}")
    result = run("segment", short, "-m", mask, "-o", tmp_path / "b", *TINY, *embedding)
    assert result.exit_code == 3
    assert "has prompts for left, middle, none for 1" in result.stderr
    assert not (tmp_path / "b").exists() or not list((tmp_path / "b").iterdir())


def test_a_file_that_is_not_there(run, short, mask, tmp_path):
    missing = ("--set", f"features.embedding={tmp_path / 'nowhere.safetensors'}")
    result = run("segment", short, "-m", mask, "-o", tmp_path / "out", *TINY, *missing)
    assert result.exit_code == 3
    assert "nowhere.safetensors: there is no such file" in result.stderr


def test_what_is_read_is_not_kept_in_a_cache(run, short, mask, tmp_path):
    result = run("segment", short, "-m", mask, "-o", tmp_path / "out", *TINY, "--cache", tmp_path / "cache")
    assert result.exit_code == 2
    assert "depend on the first frame's label" in result.stderr


def test_a_failure_while_learning_leaves_no_prompts(run, short, mask, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "prompt.safetensors"))

    monkeypatch.setattr(LearnedPrompts, "save", full)
    result = run("segment", short, "-m", mask, "-o", tmp_path / "out", *TINY, "--set", "features.steps=1")
    assert result.exit_code != 0
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
