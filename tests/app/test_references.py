from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from propagate.formats import read_indexed_png, write_mask
from propagate.types import Mask
from tests.app.conftest import HEIGHT, SMALL, WIDTH, picture, square_ids
from tests.app.test_bad_input import failed


@pytest.fixture
def reference(tmp_path):
    """A picture of the square two cells further on, with its mask and points."""
    Image.fromarray(picture(2)).save(tmp_path / "other.png")
    write_mask(tmp_path / "other_mask.png", Mask(square_ids(2)))
    (tmp_path / "other.csv").write_text("name,x,y\nmiddle,36,28\n")
    return tmp_path / "other.png"


def test_segment_labels_the_first_frame_from_a_reference(run, clip, reference, tmp_path):
    out = tmp_path / "out"
    result = run("segment", clip, "--reference", reference, "-m", tmp_path / "other_mask.png", "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    found, truth = read_indexed_png(out / "masks" / "00000.png").ids == 1, square_ids(0) == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.6
    label = json.loads((out / "run.json").read_text())["label"]
    assert label["references"][0]["picture"] == str(reference)
    assert 0 < label["found"]["1"]["mutual"] <= 1
    with (out / "confidence.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["confidence"]) == pytest.approx(label["confidence"]["1"], abs=1e-4)
    assert float(row["confidence"]) < 1
    assert "match both ways" in result.stderr


def test_track_labels_the_first_frame_from_a_reference(run, clip, reference, tmp_path):
    out = tmp_path / "out"
    result = run("track", clip, "-r", reference, "-k", tmp_path / "other.csv", "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    x, y, confidence = json.loads((out / "keypoints.json").read_text())["frames"][0]["points"]["middle"]
    assert abs(x - 20) < 10
    assert abs(y - 28) < 10
    assert 0 < confidence <= 1


def test_a_label_for_each_reference(run, clip, mask, reference, tmp_path):
    out = tmp_path / "out"
    result = run("segment", clip, "-r", reference, "-m", mask, "-m", mask, "-o", out, *SMALL)
    assert failed(result, 2, "--reference was given 1 times and --mask 2 times")
    result = run("segment", clip, "-m", mask, "-m", mask, "-o", out, *SMALL)
    assert failed(result, 2, "--mask was given 2 times")
    assert not out.exists()


def test_a_mask_of_another_size_than_its_reference(run, clip, reference, tmp_path):
    write_mask(tmp_path / "half.png", Mask(square_ids(2)[::2, ::2].copy()))
    arguments = ("segment", clip, "-r", reference, "-m", tmp_path / "half.png", "-o", tmp_path / "out", *SMALL)
    assert failed(run(*arguments), 3, "other.png", "48x32", "96x64", "--resize-mask")
    assert not (tmp_path / "out").exists()
    assert run(*arguments, "--resize-mask").exit_code == 0


def test_an_object_has_one_color_in_all_references(run, clip, reference, tmp_path):
    colors = {"one": ["red"], "other": ["blue"], "both": ["red", "blue"], "turned": ["blue", "red"]}
    for name, drawn in colors.items():
        image = Image.new("RGB", (WIDTH, HEIGHT))
        for number, color in enumerate(drawn):
            image.paste(color, (30, 20 * number + 10, 50, 20 * number + 20))
        image.save(tmp_path / f"{name}.png")

    def segment(*names):
        files = [argument for name in names for argument in ("-r", reference, "-m", tmp_path / f"{name}.png")]
        return run("segment", clip, *files, "-o", tmp_path / "out", "--overwrite", *SMALL)

    assert failed(segment("both", "turned"), 3, "Object 1 is (255, 0, 0) in the mask of one reference and (0, 0, 255)")
    assert failed(segment("both", "other"), 3, "Object 1 is (255, 0, 0)")
    for names in (("both", "one"), ("one", "other"), ("turned", "turned"), ("other_mask", "both")):
        assert "Object 1 is" not in segment(*names).stderr


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_references_of_other_modes_are_read_and_said(run, clip, reference, tmp_path, mode):
    pixels = picture(2)
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    image = Image.fromarray(gray.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(reference)
    result = run("segment", clip, "-r", reference, "-m", tmp_path / "other_mask.png", "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    assert "converted to 8-bit RGB" in result.stderr


@pytest.mark.parametrize("kind", ["missing", "text", "video", "folder", "float"])
def test_a_reference_that_is_no_picture(run, clip, mask, tmp_path, kind):
    path = tmp_path / "other.png"
    if kind == "text":
        path.write_text("no picture")
    elif kind == "video":
        path = clip
    elif kind == "folder":
        path.mkdir()
    elif kind == "float":
        path = tmp_path / "other.tif"
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.float32)).save(path)
    result = run("segment", clip, "-r", path, "-m", mask, "-o", tmp_path / "out", *SMALL)
    assert failed(result, 3, path.name)
    assert not (tmp_path / "out").exists()


def test_a_mask_that_matches_nothing_leaves_nothing(run, tmp_path):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 255, np.uint8)).save(tmp_path / "white.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "black.png")
    write_mask(tmp_path / "all.png", Mask(np.ones((HEIGHT, WIDTH), np.uint8)))
    out = tmp_path / "out"
    result = run(
        "segment", tmp_path / "white.png", "-r", tmp_path / "black.png", "-m", tmp_path / "all.png", "-o", out, *SMALL
    )
    assert failed(result, 3, "matches nothing", "Choose a reference")
    assert not out.exists()
