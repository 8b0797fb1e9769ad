"""`--cache`: the second pass over a clip."""

from __future__ import annotations

import json

import pytest

import propagate.feature_cache.cached_extractor
from propagate.formats import write_mask
from propagate.types import Mask
from tests.app.conftest import FRAMES, SMALL, square_ids


def features(out) -> dict[str, int]:
    return json.loads((out / "run.json").read_text())["cache"]["features"]


def test_another_mask_finds_the_features_and_gives_the_same_masks_as_without(run, clip, mask, tmp_path, monkeypatch):
    cache = ("--cache", tmp_path / "cache")
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "first", *cache, *SMALL)
    assert result.exit_code == 0, result.output
    assert features(tmp_path / "first") == {"found": 0, "computed": FRAMES, "kept": FRAMES}

    corrected = square_ids(0)
    corrected[16:20] = 0
    write_mask(tmp_path / "corrected.png", Mask(corrected))
    again = ("segment", clip, "-m", tmp_path / "corrected.png", "--set", "propagation.top_k=3")
    run(*again, "-o", tmp_path / "without", *SMALL)

    def unwanted(*_arguments, **_options):
        raise AssertionError("the extractor was built")

    monkeypatch.setattr(propagate.feature_cache.cached_extractor, "build_extractor", unwanted)
    result = run(*again, "-o", tmp_path / "with", *cache, "-v", *SMALL)
    assert result.exit_code == 0, result.output
    assert f"Features: {FRAMES} from the cache, 0 computed, 0 cached." in result.stderr
    assert features(tmp_path / "with") == {"found": FRAMES, "computed": 0, "kept": 0}
    hashes = [json.loads((tmp_path / name / "run.json").read_text())["settings_hash"] for name in ("with", "without")]
    assert hashes[0] == hashes[1]
    for index in range(FRAMES):
        with_, without = (tmp_path / name / "masks" / f"{index:05d}.png" for name in ("with", "without"))
        assert with_.read_bytes() == without.read_bytes()


def test_tracking_shares_the_features_of_segmenting(run, clip, mask, keypoints, tmp_path):
    cache = ("--cache", tmp_path / "cache")
    run("segment", clip, "-m", mask, "-o", tmp_path / "a", *cache, *SMALL)
    result = run("track", clip, "-k", keypoints, "-o", tmp_path / "b", *cache, *SMALL)
    assert result.exit_code == 0, result.output
    assert features(tmp_path / "b")["found"] == FRAMES


def test_a_cache_that_is_too_small_is_a_note_and_no_failure(run, clip, mask, tmp_path):
    # 64 x 96 pixels: 8 x 12 cells of 48 float32, so three frames
    cache = ("--cache", tmp_path / "cache", "--cache-size", "60kB")
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", *cache, *SMALL)
    assert result.exit_code == 0, result.output
    assert "note: No more features are kept" in result.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["frames_done"] == FRAMES
    assert record["cache"]["features"]["kept"] == 3
    assert "Raise --cache-size" in record["notes"][0]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors")) <= 60_000


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--cache-size", "1GB"), 2, "--cache-size needs a folder"),
        (("--cache", "CACHE", "--cache-size", "much"), 2, "--cache-size much: Not a size"),
        (("--cache", "FILE"), 3, "is a file"),
    ],
)
def test_what_is_no_cache_is_refused_before_anything_is_written(run, clip, mask, tmp_path, options, code, words):
    (tmp_path / "FILE").write_bytes(b"")
    given = [tmp_path / option if option.isupper() else option for option in options]
    result = run("segment", clip, "-m", mask, "-o", tmp_path / "out", *given, *SMALL)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (tmp_path / "out").exists()
