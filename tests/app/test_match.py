from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.app.conftest import HEIGHT, SMALL, WIDTH, picture
from tests.app.test_bad_input import failed


@pytest.fixture
def pair(tmp_path):
    """The square, and the square 16 pixels to the right in a taller picture."""
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(picture(0)).save(a)
    taller = np.full((HEIGHT + 32, WIDTH, 3), 128, np.uint8)
    taller[:HEIGHT] = picture(2)
    Image.fromarray(taller).save(b)
    return a, b


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("name,x,y\nleft/top,11.5,19.5\nmiddle,19.5,27.5\n")
    return path


HALF_A_CELL = 4
OWN_SIZE = (*SMALL, "--set", "video.short_side=null")


def test_points_are_found_and_drawn(run, pair, points, tmp_path):
    out = tmp_path / "out"
    result = run("match", *pair, "--points", points, "-o", out, *OWN_SIZE)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "correspondences.json").read_text())["points"]
    assert [point["name"] for point in found] == ["left/top", "middle"]
    for point in found:
        np.testing.assert_allclose(np.subtract(point["b"], point["a"]), [16, 0], atol=HALF_A_CELL)
        assert point["cosine"] > 0.95
        assert point["mutual"] is True
    with Image.open(out / "lines.png") as lines:
        assert lines.width > lines.height
    assert sorted(path.name for path in (out / "heat").iterdir()) == ["01_left_top.png", "02_middle.png"]
    with Image.open(out / "heat" / "02_middle.png") as heat:
        assert heat.size == (WIDTH, HEIGHT + 32)
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "match"
    assert record["settings"]["features"]["name"] == "rgb"
    assert not (out / "dense.npz").exists()


def test_dense_gives_the_match_of_every_cell(run, pair, tmp_path):
    out = tmp_path / "out"
    assert run("match", *pair, "--dense", "-o", out, *OWN_SIZE).exit_code == 0
    with np.load(out / "dense.npz") as arrays:
        assert arrays["x"].shape == arrays["mutual"].shape == (HEIGHT // 8, WIDTH // 8)
        assert arrays["mutual"].dtype == bool
        inside = np.s_[2:5, 1:4]  # the square of frame 0
        np.testing.assert_allclose(arrays["x"][inside] - arrays["a_x"][inside], 16, atol=HALF_A_CELL)
        np.testing.assert_allclose(arrays["y"][inside] - arrays["a_y"][inside], 0, atol=HALF_A_CELL)
        assert arrays["cosine"][inside].min() > 0.95
    assert (out / "dense.png").is_file()
    assert sorted(path.name for path in out.iterdir()) == ["dense.npz", "dense.png", "run.json"]


def test_weak_matches_are_said(run, tmp_path):
    for seed, name in enumerate(("a.png", "b.png")):
        noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    result = run("match", tmp_path / "a.png", tmp_path / "b.png", "--dense", "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0
    assert "That is weak" in result.stderr
    assert any("That is weak" in note for note in json.loads((tmp_path / "out" / "run.json").read_text())["notes"])


def test_nothing_to_match(run, pair, tmp_path):
    assert failed(run("match", *pair, "-o", tmp_path / "out", *SMALL), 2, "--points", "--dense")
    assert not (tmp_path / "out").exists()


def test_bad_input_leaves_nothing(run, pair, tmp_path, clip):
    out = tmp_path / "out"
    assert failed(run("match", pair[0], clip, "--dense", "-o", out, *SMALL), 3, "is a video, not a picture")
    assert failed(run("match", pair[0], tmp_path / "no.jpg", "--dense", "-o", out, *SMALL), 3, "no.jpg")
    document = {
        "version": 1,
        "width": 10,
        "height": 10,
        "names": ["a"],
        "frames": [{"frame": 0, "points": {"a": [5, 5]}}],
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    assert failed(run("match", *pair, "-p", tmp_path / "p.json", "-o", out, *SMALL), 3, "10x10", "96x64")
    assert not out.exists()


def test_results_do_not_replace_a_picture_that_is_matched(run, pair, points, tmp_path):
    out = tmp_path / "out"
    (out / "heat").mkdir(parents=True)
    for place in (out / "lines.png", out / "heat" / "01.png"):
        before = pair[0].read_bytes()
        place.write_bytes(before)
        result = run("match", place, pair[1], "--points", points, "-o", out, "--overwrite", *OWN_SIZE)
        assert failed(result, 2, f"would replace the input {place}")
        assert place.read_bytes() == before
