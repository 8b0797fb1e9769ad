from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from propagate.errors import InputError
from propagate.formats import read_keypoints, read_keypoints_file

SIZE = (48, 64)


def ours(**changes: object) -> dict[str, object]:
    document: dict[str, object] = {
        "width": 64,
        "height": 48,
        "names": ["nose", "tail", "paw"],
        "skeleton": [["nose", "tail"], ["tail", "paw"]],
        "frames": [{"frame": 0, "points": {"nose": [10.5, 20.25, 0.5], "tail": None, "paw": [3, 4]}}],
    }
    return {**document, **changes}


def coco(**changes: object) -> dict[str, object]:
    document: dict[str, object] = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "keypoints": [10.5, 20.25, 2, 0, 0, 0, 3, 4, 1], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "cat", "keypoints": ["nose", "tail", "paw"], "skeleton": [[1, 2], [2, 3]]}],
    }
    return {**document, **changes}


def saved(tmp_path: Path, content: object, name: str = "points.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def expect(path: Path, confidence: list[float], skeleton: tuple[tuple[int, int], ...]) -> None:
    keypoints = read_keypoints(path, frame_size=SIZE)
    assert keypoints.names == ("nose", "tail", "paw")
    assert keypoints.skeleton == skeleton
    np.testing.assert_array_equal(keypoints.positions, np.float32([[10.5, 20.25], [np.nan, np.nan], [3, 4]]))
    np.testing.assert_array_equal(keypoints.confidence, np.float32(confidence))


def test_our_json(tmp_path: Path) -> None:
    expect(saved(tmp_path, ours()), [0.5, 0, 1], ((0, 1), (1, 2)))


def test_coco_occluded_joints_have_a_place_and_unlabeled_ones_none(tmp_path: Path) -> None:
    expect(saved(tmp_path, coco()), [1, 0, 1], ((0, 1), (1, 2)))


@pytest.mark.parametrize(
    "text",
    [
        "frame,name,x,y,confidence\n0,nose,10.5,20.25,0.5\n0,tail,,,0\n0,paw,3,4,\n",
        "\ufeffname, x, y, confidence\nnose, 10.5, 20.25, 0.5\ntail, nan, nan, 0\npaw, 3, 4, 1\n",
        "confidence,y,x,name\r\n0.5,20.25,10.5,nose\r\n,,,tail\r\n1,4,3,paw\r\n",
    ],
)
def test_csv_in_any_order_of_columns(tmp_path: Path, text: str) -> None:
    expect(saved(tmp_path, text, "points.csv"), [0.5, 0, 1], ())


def test_the_format_is_found_by_content_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    assert read_keypoints(saved(tmp_path, ours(), "a.txt")).names == ("nose", "tail", "paw")
    assert read_keypoints(saved(tmp_path, "name,x,y\nnose,1,2\n", "b.txt")).names == ("nose",)


def test_a_joint_that_is_left_out_is_absent(tmp_path: Path) -> None:
    path = saved(tmp_path, ours(frames=[{"frame": 0, "points": {"paw": [1, 2]}}]))
    assert read_keypoints(path).present.tolist() == [False, False, True]


def test_nan_is_absent(tmp_path: Path) -> None:
    path = saved(tmp_path, '{"names": ["a", "b"], "frames": [{"frame": 0, "points": {"a": [NaN, 3], "b": [1, 2]}}]}')
    keypoints = read_keypoints(path)
    assert keypoints.present.tolist() == [False, True]
    assert keypoints.confidence.tolist() == [0, 1]


def test_joints_outside_the_frame_are_kept_absent_and_said(tmp_path: Path) -> None:
    points = {"nose": [-0.6, 3], "tail": [63.5, 47.5], "paw": [63.6, 10]}
    read = read_keypoints_file(saved(tmp_path, ours(frames=[{"frame": 0, "points": points}])), frame_size=SIZE)
    assert read.keypoints.names == ("nose", "tail", "paw")
    assert read.keypoints.present.tolist() == [False, True, False]
    assert read.keypoints.confidence.tolist() == [0, 1, 0]
    assert any("nose, paw" in note and "64x48" in note and "absent" in note for note in read.notes)


@pytest.mark.parametrize(("x", "y"), [(-0.6, 3), (63.6, 3), (3, -0.6), (3, 47.6)])
def test_each_border_of_the_frame(tmp_path: Path, x: float, y: float) -> None:
    points = {"nose": [x, y], "tail": [-0.5, -0.5], "paw": [63.5, 47.5]}
    keypoints = read_keypoints(saved(tmp_path, ours(frames=[{"frame": 0, "points": points}])), frame_size=SIZE)
    assert keypoints.present.tolist() == [False, True, True]


def test_no_joint_left(tmp_path: Path) -> None:
    path = saved(tmp_path, ours(frames=[{"frame": 0, "points": {"nose": [-10, 3]}}]))
    with pytest.raises(InputError, match="no joint is inside"):
        read_keypoints(path, frame_size=SIZE)


@pytest.mark.parametrize("document", [ours(), coco()])
def test_another_frame_size_names_both(tmp_path: Path, document: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"64x48.*128x96"):
        read_keypoints(saved(tmp_path, document), frame_size=(96, 128))


@pytest.mark.parametrize(
    ("document", "found", "nearest"),
    [
        (ours(skeletton=[]), "skeletton", "skeleton"),
        ({"name": ["a"], "frames": []}, "name", "names"),
        (ours(frames=[{"frame": 0, "pionts": {}}]), "pionts", "points"),
        (ours(frames=[{"frame": 0, "points": {"noze": [1, 2]}}]), "noze", "nose"),
        (ours(skeleton=[["nose", "tial"]]), "tial", "tail"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    tmp_path: Path, document: object, found: str, nearest: str
) -> None:
    with pytest.raises(InputError, match=f"unknown .*{found!r}") as caught:
        read_keypoints(saved(tmp_path, document))
    assert repr(nearest) in caught.value.remedy
    assert "points.json" in caught.value.message
    assert caught.value.exit_code == 3


def test_an_unknown_column_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'confidense'") as caught:
        read_keypoints(saved(tmp_path, "frame,name,x,y,confidense\n", "p.csv"))
    assert "'confidence'" in caught.value.remedy


def test_a_key_like_no_other_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'zzzz'") as caught:
        read_keypoints(saved(tmp_path, ours(zzzz=1)))
    assert "'names'" in caught.value.remedy
    assert "'frames'" in caught.value.remedy


def test_a_misspelled_key_of_coco(tmp_path: Path) -> None:
    document = coco()
    document["anotations"] = document.pop("annotations")
    with pytest.raises(InputError, match="'annotations' is missing; there is 'anotations'"):
        read_keypoints(saved(tmp_path, document))


def test_what_other_tools_add_to_coco_is_no_error(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 7, "category_id": 1, "keypoints": [0] * 9, "num_keypoints": 0},
        {"id": 3, "image_id": 7, "category_id": 1, "keypoints": [1, 2, 2] * 3, "segmentation": []},
    ]
    assert read_keypoints(saved(tmp_path, coco(info={}, licenses=[], annotations=annotations))).present.all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{not json", "not JSON"),
        (ours(names=["nose", "nose", "paw"]), "twice"),
        (ours(frames=[{"frame": -1, "points": {}}]), "frames"),
        (ours(frames=[{"frame": 0, "points": {"nose": [1]}}]), "1 numbers"),
        (ours(frames=[{"frame": 0, "points": {"nose": "here"}}]), "nose"),
        (ours(frames=[{"frame": 0, "points": {"nose": [1, 2, 1.5]}}]), "confidence of 'nose' is 1.5"),
        (ours(version=2), "version"),
        (ours(frames=[]), "holds no keypoints"),
        ([{"image_id": 1, "keypoints": []}], "is a list"),
        (coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1, 2, 2]}]), "3 values"),
        (coco(annotations=[{"image_id": 8, "category_id": 1, "keypoints": [1, 2, 2] * 3}]), "not in the file"),
        (coco(categories=[{"id": 1, "keypoints": ["a", "b", "c"], "skeleton": [[0, 1]]}]), "skeleton"),
        (coco(annotations=[]), "holds no keypoints"),
    ],
)
def test_files_that_are_wrong_say_where(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_keypoints(saved(tmp_path, content))
    assert "points.json" in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'name' is missing"),
        ("frame,x,y\n", "'name' is missing"),
        ("name,x,y\n", "holds no keypoints"),
        ("frame,name,x,y\nzero,nose,1,2\n", "line 2: the frame is 'zero'"),
        ("name,x,y\nnose,1,2\ntail,left,2\n", "line 3: x is 'left'"),
        ("name,x,y\nnose,1\n", "line 2: it does not have 3 values"),
        ("name,x,y\nnose,1,2,3\n", "line 2: it does not have 3 values"),
        ("name,x,y\n,1,2\n", "line 2: the joint has no name"),
        ("name,x,y\nnose,1,2\nnose,3,4\n", "line 3: 'nose' stands twice"),
        ("name,x,y,confidence\nnose,1,2,7\n", "confidence of 'nose' is 7"),
    ],
)
def test_a_csv_that_is_wrong_says_in_which_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_keypoints(saved(tmp_path, text, "points.csv"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nix\.json does not exist"):
        read_keypoints(tmp_path / "nix.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_keypoints(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match="not text"):
        read_keypoints(tmp_path / "binary.json")


def clip(tmp_path: Path) -> Path:
    frames = [{"frame": number, "points": {"nose": [number, 1]}} for number in (12, 5, 30)]
    return saved(tmp_path, ours(frames=frames))


def test_of_several_frames_the_first_is_taken_and_said(tmp_path: Path) -> None:
    read = read_keypoints_file(clip(tmp_path))
    assert read.keypoints.positions[0, 0] == 5
    assert any("3 frames" in note and "frame 5" in note for note in read.notes)


def test_a_frame_is_chosen_by_its_number(tmp_path: Path) -> None:
    read = read_keypoints_file(clip(tmp_path), frame=30)
    assert read.keypoints.positions[0, 0] == 30
    assert read.notes == ()


def test_a_frame_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no keypoints of frame 6") as caught:
        read_keypoints(clip(tmp_path), frame=6)
    assert "5, 12, 30" in caught.value.remedy


def two_people() -> dict[str, object]:
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "keypoints": [number, 1, 2] * 3} for number in (17, 42)
    ]
    return coco(annotations=annotations)


def test_of_several_instances_one_must_be_chosen(tmp_path: Path) -> None:
    path = saved(tmp_path, two_people())
    with pytest.raises(InputError, match="2 instances: 17, 42") as caught:
        read_keypoints(path)
    assert "instance" in caught.value.remedy
    assert read_keypoints(path, instance=42).positions[0, 0] == 42
    with pytest.raises(InputError, match="no instance 3") as caught:
        read_keypoints(path, instance=3)
    assert "17, 42" in caught.value.remedy


@pytest.mark.parametrize(
    ("images", "number"),
    [
        ([{"id": 1, "frame_id": 4, "file_name": "9.jpg"}, {"id": 7, "frame_id": 6, "file_name": "8.jpg"}], 6),
        ([{"id": 1, "file_name": "v2/frame_004.jpg"}, {"id": 7, "file_name": "v2/frame_006.jpg"}], 6),
        ([{"id": 1, "file_name": "first.jpg"}, {"id": 7, "file_name": "second.jpg"}], 1),
    ],
)
def test_the_frame_number_of_a_coco_image(tmp_path: Path, images: list[dict[str, object]], number: int) -> None:
    path = saved(tmp_path, coco(images=images))
    assert read_keypoints(path, frame=number).present.any()
    with pytest.raises(InputError, match=f"no keypoints of frame {number + 1}"):
        read_keypoints(path, frame=number + 1)


def test_a_single_coco_image_is_of_whatever_frame(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "COCO_000000397133.jpg"}]
    assert read_keypoints(saved(tmp_path, coco(images=images)), frame=0).present.any()
