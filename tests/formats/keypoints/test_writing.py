from __future__ import annotations

import csv
import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.errors import InputError, UsageError
from propagate.formats import KeypointsFormat, KeypointsWriter, read_keypoints, write_keypoints
from propagate.types import Keypoints, Prediction

SIZE = (48, 64)
NAMES = ("nose", "left, ear", 'the "tail"', "Öhr")
BONES = ((0, 1), (0, 3))
FORMATS: list[tuple[KeypointsFormat, str]] = [("json", "a.json"), ("coco", "a.json"), ("csv", "a.csv")]

number = st.floats(-0.5, 47.5, width=32)
joint = st.none() | st.tuples(number, number, st.floats(0, 1, width=32))
frame = st.lists(joint, min_size=4, max_size=4).filter(any)


def prediction(index: int, joints: list[tuple[float, float, float] | None]) -> Prediction:
    absent = (np.nan, np.nan, 0.0)
    values = np.array([absent if one is None else one for one in joints], np.float32)
    keypoints = Keypoints(values[:, :2].copy(), NAMES, BONES, values[:, 2].copy())
    return Prediction(index=index, time_s=index / 25, keypoints=keypoints)


def some() -> list[Prediction]:
    return [prediction(i, [(i + 0.1, 2.0, 1.0), None, (3.0, 4.0, 0.25), (5.0, 6.0, 0.5)]) for i in (0, 1, 5)]


@pytest.mark.parametrize(("format", "name"), FORMATS)
@settings(deadline=None, max_examples=25)
@given(frames=st.lists(frame, min_size=1, max_size=4))
def test_every_frame_comes_back_as_rounded(
    tmp_path_factory: pytest.TempPathFactory, format: KeypointsFormat, name: str, frames: list
) -> None:
    path = tmp_path_factory.mktemp("points") / name
    written = [prediction(3 * i, joints) for i, joints in enumerate(frames)]
    write_keypoints(path, written, frame_size=SIZE, format=format)
    for one in written:
        read = read_keypoints(path, frame_size=SIZE, frame=one.index)
        assert one.keypoints is not None
        assert read.names == NAMES
        assert read.skeleton == (() if format == "csv" else BONES)
        np.testing.assert_allclose(read.positions, one.keypoints.positions, rtol=0, atol=0.00501)
        np.testing.assert_allclose(read.confidence, one.keypoints.confidence, rtol=0, atol=0.000051)


@pytest.mark.parametrize(("format", "name"), FORMATS)
def test_every_digit_is_kept_where_that_is_asked(tmp_path: Path, format: KeypointsFormat, name: str) -> None:
    one = prediction(0, [(1.2345678, -0.001, 0.1234567), None, (3, 4, 1), (5, 6, 1)])
    assert one.keypoints is not None
    for exact in (True, False):
        with KeypointsWriter(tmp_path / name, frame_size=SIZE, format=format, exact=exact) as writer:
            writer.write(one)
        read = read_keypoints(tmp_path / name, frame_size=SIZE)
        assert np.array_equal(read.positions, one.keypoints.positions, equal_nan=True) == exact
        assert np.array_equal(read.confidence, one.keypoints.confidence) == exact
    assert "1.23," in (tmp_path / name).read_text(encoding="utf-8")
    assert "-0.0" not in (tmp_path / name).read_text(encoding="utf-8")


def test_our_json_is_what_the_documentation_says(tmp_path: Path) -> None:
    write_keypoints(tmp_path / "a.json", some(), frame_size=SIZE)
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (document["width"], document["height"]) == (64, 48)
    assert document["names"] == list(NAMES)
    assert document["skeleton"] == [["nose", "left, ear"], ["nose", "Öhr"]]
    assert [(entry["frame"], entry["time_s"]) for entry in document["frames"]] == [(0, 0), (1, 0.04), (5, 0.2)]
    points = document["frames"][2]["points"]
    assert points == {"nose": [5.1, 2, 1], "left, ear": None, 'the "tail"': [3, 4, 0.25], "Öhr": [5, 6, 0.5]}


def test_json_names_the_pictures(tmp_path: Path) -> None:
    (one, *_) = some()
    named = [replace(one, index=0, name="img_7"), replace(one, index=1, name="caf\udce9"), replace(one, index=2)]
    write_keypoints(tmp_path / "a.json", named, frame_size=SIZE)
    frames = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["frames"]
    assert [entry.get("name") for entry in frames] == ["img_7", r"caf\xe9", None]
    assert read_keypoints(tmp_path / "a.json", frame=1).names == NAMES
    write_keypoints(tmp_path / "a.json", named, frame_size=SIZE, format="coco")
    images = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["images"]
    assert [image["file_name"] for image in images] == ["img_7.jpg", r"caf\xe9.jpg", "00002.jpg"]


def test_coco_has_its_flags_boxes_and_ids(tmp_path: Path) -> None:
    write_keypoints(tmp_path / "a.json", some(), frame_size=SIZE, format="coco")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    (category,) = document["categories"]
    assert category["keypoints"] == list(NAMES)
    assert category["skeleton"] == [[1, 2], [1, 4]]
    assert len({annotation["id"] for annotation in document["annotations"]}) == 3
    images = {image["id"]: image for image in document["images"]}
    assert [images[a["image_id"]]["frame_id"] for a in document["annotations"]] == [0, 1, 5]
    assert all((image["width"], image["height"]) == (64, 48) for image in images.values())
    first = document["annotations"][0]
    assert first["keypoints"] == [0.1, 2, 2, 0, 0, 0, 3, 4, 2, 5, 6, 2]
    assert first["num_keypoints"] == 3
    assert first["bbox"] == pytest.approx([0.1, 2, 4.9, 4])
    assert first["area"] == pytest.approx(4.9 * 4)


def test_coco_of_a_frame_without_any_joint(tmp_path: Path) -> None:
    write_keypoints(tmp_path / "a.json", [prediction(0, [None] * 4)], frame_size=SIZE, format="coco")
    (annotation,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert annotation["num_keypoints"] == 0
    assert annotation["bbox"] == [0, 0, 0, 0]


def test_csv_has_a_line_for_each_joint(tmp_path: Path) -> None:
    write_keypoints(tmp_path / "a.csv", some(), frame_size=SIZE)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["frame", "name", "x", "y", "confidence"]
    assert len(rows) == 1 + 3 * 4
    assert rows[1:3] == [["0", "nose", "0.1", "2.0", "1.0"], ["0", "left, ear", "", "", "0.0"]]


@pytest.mark.parametrize(("format", "name"), FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_an_interrupted_clip_leaves_the_old_file(
    tmp_path: Path, format: KeypointsFormat, name: str, error: BaseException
) -> None:
    (tmp_path / name).write_text("old")

    def interrupted() -> object:
        yield from some()
        raise error

    with pytest.raises(type(error)):
        write_keypoints(tmp_path / name, interrupted(), frame_size=SIZE, format=format)
    assert (tmp_path / name).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_nothing_stands_at_the_path_before_the_end(tmp_path: Path) -> None:
    with KeypointsWriter(tmp_path / "a.csv", frame_size=SIZE) as writer:
        writer.write(some()[0])
        assert not (tmp_path / "a.csv").exists()
    assert (tmp_path / "a.csv").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"a\.json cannot be written: the disk is full"):
        write_on_a_full_disk(tmp_path / "a.json", monkeypatch)
    assert list(tmp_path.iterdir()) == []


def write_on_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with KeypointsWriter(path, frame_size=SIZE) as writer:
        writer.write(some()[0])
        monkeypatch.setattr(writer, "_file", type("Full", (), {"write": staticmethod(full)}))
        writer.write(some()[1])


def test_no_frame_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no frame"):
        write_keypoints(tmp_path / "a.json", [], frame_size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_suffix_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"points\.txt"):
        KeypointsWriter(tmp_path / "points.txt", frame_size=SIZE)


def test_frames_with_other_joints_are_refused(tmp_path: Path) -> None:
    other = Prediction(index=9, time_s=0.0, keypoints=Keypoints(np.ones((1, 2), np.float32), ("a",)))
    with pytest.raises(ValueError, match="frame 9 does not have the joints"):
        write_keypoints(tmp_path / "a.json", [*some(), other], frame_size=SIZE)
    assert list(tmp_path.iterdir()) == []
