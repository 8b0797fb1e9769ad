from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    path = saved(tmp_path, '{"names": ["a", "b"], "frames": [{"frame": 0, "points": {"a": [NaN, NaN], "b": [1, 2]}}]}')
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
        (ours(height=None), "gives one of 'width' and 'height'"),
        (coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1, 2, float("inf")] * 3}]), "is inf"),
        (ours(frames=[{"frame": 0, "points": {"nose": [1, float("inf")]}}]), r"'nose' is \(1.0, inf\)"),
        (
            coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [5, 6, 0] * 3}]),
            "since they have a position, but visibility 0: nose, tail, paw",
        ),
        (ours(frames=[]), "holds no keypoints"),
        ([{"image_id": 1, "keypoints": []}], "is a list"),
        (coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1, 2, 2]}]), "3 values"),
        (coco(annotations=[{"image_id": 8, "category_id": 1, "keypoints": [1, 2, 2] * 3}]), "not in the file"),
        (coco(categories=[{"id": 1, "keypoints": ["a", "b", "c"], "skeleton": [[0, 1]]}]), "skeleton"),
        (coco(annotations=[]), "holds no keypoints"),
        (coco(annotations=None, images=None, categories=None), "holds no keypoints"),
        (
            coco(categories=[{"id": 1, "name": "cat", "keypoints": ["a", "a", "b"]}]),
            "named twice in the category 'cat'",
        ),
        (coco(categories=[{"id": 1, "keypoints": ["a", " ", "b"]}]), "name is ' '"),
        (coco(images=[{"id": 7}, {"id": 7}]), "two of the images have the id 7"),
        (coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1, None, 2] * 3}]), "position of 'nose'"),
        (coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1, 2, 0.7] * 3}]), "visibility of 'nose'"),
        (coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1e40, 2, 1] * 3}]), "position of 'nose'"),
        (ours(frames=[{"frame": 0, "points": {"nose": [1, None]}}]), "position of 'nose'"),
        ('{"names": ' + "[" * 100_000, "nested too deeply"),
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
        ("name,x,y\nnose,1,2\nnose,3,4\n", "line 3: 'nose' appears twice"),
        ("name,x,y,confidence\nnose,1,2,7\n", "confidence of 'nose' is 7"),
        ("name,x,y,confidence\nnose,1,2,nan\n", "line 2: confidence is 'nan'"),
        ("name,x,y\nnose,1,\n", "line 2: 'nose' has one of x and y"),
        ("name,x,y\nnose,inf,2\n", "line 2: x is 'inf'"),
        ("name,x,y\nnose,1e300,2\n", "position of 'nose' is"),
        (",name,x,y,\n0,nose,1,2,\n1,nose,3,4,\n", "line 3: 'nose' appears twice"),
        ("name,,x,y\nnose,,1,2\n", "unknown column: ''"),
        ("name,x,y\nnose,1_0,2\n", "line 2: x is '1_0'"),
        ('name,x,y\nnose,"1,5",2.5\n', "line 2: numbers have decimal points and decimal commas"),
        ("name,x,y\nnose,1,5,2,5\n", "line 2: it does not have 3 values"),
        ("name;x;y\nnose;1,5;2.5\n", "line 2: numbers have decimal points and decimal commas"),
        ("name;x;y\nnose;1.234,5;2\n", "line 2: numbers have decimal points and decimal commas"),
        ("name,x,x,y\nnose,1,1,2\n", "column 'x' appears twice"),
        ("frame,name,x,y\n0.5,nose,1,2\n", "line 2: the frame is '0.5'"),
        (f"frame,name,x,y\n{'1' * 5000},nose,1,2\n", "line 2: the frame is '1{20}...'"),
        ("frame,name,x,y\n-1,nose,1,2\n", "line 2: the frame is '-1'"),
        ("name,x,y\nno\0se,1,2\n", "null characters"),
        ("name,x,y\n" + "n" * 200_000 + ",1,2\n", "is not CSV: field larger"),
    ],
)
def test_a_csv_that_is_wrong_says_in_which_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_keypoints(saved(tmp_path, text, "points.csv"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nix\.json does not exist"):
        read_keypoints(tmp_path / "nix.json")
    with pytest.raises(InputError, match="is a folder"):
        read_keypoints(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_keypoints(tmp_path / "binary.json")


def clip(tmp_path: Path) -> Path:
    frames = [{"frame": number, "points": {"nose": [number, 1]}} for number in (12, 5, 30)]
    return saved(tmp_path, ours(frames=frames))


def test_of_several_frames_one_must_be_chosen(tmp_path: Path) -> None:
    path = clip(tmp_path)
    with pytest.raises(InputError, match=r"holds 3 annotated frames: 5, 12, 30\. One is used") as caught:
        read_keypoints(path)
    assert "frame=5" in caught.value.remedy
    with pytest.raises(InputError, match="holds 3 annotated frames"):
        read_keypoints_file(path, frame=12, alone=True)
    assert read_keypoints(path, frame=12).positions[0, 0] == 12


def test_a_frame_is_chosen_by_its_number(tmp_path: Path) -> None:
    read = read_keypoints_file(clip(tmp_path), frame=30)
    assert read.keypoints.positions[0, 0] == 30
    assert [note.split(": ", 1)[1] for note in read.notes] == [
        "frame 30 is used; other frames of the file are not: 5, 12."
    ]


@pytest.mark.parametrize(
    "text", ['name,x,y\nnose,"1,5","2,25"\n', "name;x;y;;\nnose;1,5;2,25;\n", "name,x,y,\nnose,1.5,2.25,,\n"]
)
def test_spreadsheets_quote_decimal_commas_and_end_lines_with_separators(tmp_path: Path, text: str) -> None:
    found = read_keypoints(saved(tmp_path, text, "points.csv"))
    np.testing.assert_allclose(found.positions, [[1.5, 2.25]])


def test_commas_that_may_be_thousands_are_said(tmp_path: Path) -> None:
    for other, said in (("2", True), ('"12,345"', True), ('"2,5"', False)):
        path = saved(tmp_path, f'name,x,y\nnose,"1,234",{other}\n', "points.csv")
        read = read_keypoints_file(path)
        assert read.keypoints.positions[0, 0] == np.float32(1.234)
        assert (f"{path}: 1,234 is read with a decimal comma, as 1.234." in read.notes) == said


def test_joints_of_little_confidence_are_said(tmp_path: Path) -> None:
    points = {"nose": [1, 2, 0], "tail": None, "paw": [3, 4, 0.1]}
    read = read_keypoints_file(saved(tmp_path, ours(frames=[{"frame": 0, "points": points}])))
    assert [note.split(": ", 1)[1] for note in read.notes] == [
        "confidence below 0.1, and carried like the others: nose."
    ]


def test_coco_ids_may_be_numbers_here_and_text_there(tmp_path: Path) -> None:
    category = {"id": "3", "keypoints": ["nose"]}
    annotation = {"id": 1, "image_id": "1", "category_id": 3, "keypoints": [5, 6, 2]}
    document = {"images": [{"id": 1}], "annotations": [annotation], "categories": [category]}
    np.testing.assert_allclose(read_keypoints(saved(tmp_path, document)).positions, [[5, 6]])
    with pytest.raises(InputError, match="two of the images have the id 1"):
        read_keypoints(saved(tmp_path, {**document, "images": [{"id": 1}, {"id": "1"}]}))


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
        ([{"id": 1, "file_name": "0004_cam0.jpg"}, {"id": 7, "file_name": "0006_cam0.jpg"}], 6),
        ([{"id": 1, "file_name": "a/0006.jpg"}, {"id": 7, "file_name": "b/0006.jpg"}], 6),
        ([{"id": 1, "file_name": f"{4:030d}_1.jpg"}, {"id": 7, "file_name": f"{6:030d}_9.jpg"}], 9),
    ],
)
def test_the_frame_number_of_a_coco_image(tmp_path: Path, images: list[dict[str, object]], number: int) -> None:
    path = saved(tmp_path, coco(images=images))
    assert read_keypoints(path, frame=number).present.any()
    with pytest.raises(InputError, match=f"no keypoints of frame {number + 1}"):
        read_keypoints(path, frame=number + 1)


def test_a_frame_is_found_by_the_name_of_its_picture(tmp_path: Path) -> None:
    names = ("x\\img_0001.jpg", "y/img_0002.jpg", "img_0003.jpg")
    images = [{"id": n, "file_name": name} for n, name in enumerate(names, start=1)]
    annotations = [{"image_id": n, "category_id": 1, "keypoints": [n, 1, 2] * 3} for n in (1, 2)]
    theirs = saved(tmp_path, coco(images=images, annotations=annotations), "coco.json")
    frames = [{"frame": n, "name": f"img_000{n}", "points": {"nose": [n, 1]}} for n in (1, 2)]
    for path in (theirs, saved(tmp_path, ours(frames=frames))):
        read = read_keypoints_file(path, frame=1, picture="img_0002")
        assert read.keypoints.positions[0, 0] == 2
        assert not any("annotated is the picture" in note for note in read.notes)
        read = read_keypoints_file(path, frame=2, picture="img_0003")
        assert read.keypoints.positions[0, 0] == 2
        assert f"{path}: the annotated picture is img_0002, but the frame is img_0003." in read.notes


def test_a_frame_id_of_coco_tells_more_than_a_name(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n:05d}.jpg", "frame_id": n} for n in (1, 2)]
    annotations = [{"image_id": n, "category_id": 1, "keypoints": [n, 1, 2] * 3} for n in (1, 2)]
    path = saved(tmp_path, coco(images=images, annotations=annotations))
    assert read_keypoints_file(path, frame=1, picture="00002").keypoints.positions[0, 0] == 1


def test_a_single_coco_image_is_of_whatever_frame(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "COCO_000000397133.jpg"}]
    assert read_keypoints(saved(tmp_path, coco(images=images)), frame=0).present.any()


def test_empty_lists_of_coco_may_be_null_and_ids_text(tmp_path: Path) -> None:
    category = {"id": "c", "name": None, "keypoints": ["nose", "tail", "paw"], "skeleton": None}
    annotation = {
        "id": "first",
        "image_id": "i",
        "category_id": "c",
        "keypoints": [10.5, 20.25, 2, None, None, 0, 3, 4, 1],
    }
    box = {"id": "box", "image_id": "i", "category_id": "c", "keypoints": None}
    images = [{"id": "i", "file_name": None}, {"id": "unused"}]
    document = coco(images=images, annotations=[box, annotation], categories=[category])
    expect(saved(tmp_path, document), [1, 0, 1], ())
    assert read_keypoints(saved(tmp_path, document), instance="first").present.sum() == 2


def test_joints_of_coco_whose_visibility_contradicts_their_position_are_said(tmp_path: Path) -> None:
    flat = [10.5, 20.25, 0, None, None, 2, 3, 4, 1]
    annotation = {"id": 1, "image_id": 7, "category_id": 1, "keypoints": flat}
    read = read_keypoints_file(saved(tmp_path, coco(annotations=[annotation])))
    assert read.keypoints.present.tolist() == [False, False, True]
    assert [note.split(": ", 1)[1] for note in read.notes] == [
        "annotations[0]: absent, since they have a position, but visibility 0: nose.",
        "annotations[0]: absent, since they are visible, but have no position: tail.",
    ]
    annotation["keypoints"] = [0, 0, 0, None, None, None, 3, 4, 1]
    assert read_keypoints_file(saved(tmp_path, coco(annotations=[annotation]))).notes == ()


def test_coco_has_many_words_for_no_number(tmp_path: Path) -> None:
    annotation = {"image_id": 7, "category_id": 1, "keypoints": [float("nan")] * 6 + [3, 4, 1], "area": float("inf")}
    document = coco(annotations=[{**annotation, "keypoint_scores": [None, float("nan"), 0.5]}], info={"n": 10**30})
    read = read_keypoints_file(saved(tmp_path, document))
    assert (read.keypoints.confidence.tolist(), read.notes) == ([0, 0, 0.5], ())
    document = coco(annotations=[{**annotation, "keypoint_scores": [None, 1, None]}])
    with pytest.raises(InputError, match="confidence of 'paw' is nan"):
        read_keypoints(saved(tmp_path, document))


@pytest.mark.parametrize(
    "text",
    [
        ",frame,name,x,y\n0,3,nose,1,2\n1,3,tail,3,4\n",
        "Unnamed: 0,name,x,y\n7,nose,1,2\n8,tail,3,4\n",
        "\n \n\tframe\tname\tx\ty\n0\t3\tnose\t1\t2\n1\t3\ttail\t3\t4\n",
    ],
)
def test_the_index_of_pandas_is_left_out_and_said(tmp_path: Path, text: str) -> None:
    read = read_keypoints_file(saved(tmp_path, text, "points.csv"))
    assert read.keypoints.names == ("nose", "tail")
    np.testing.assert_array_equal(read.keypoints.positions, [[1, 2], [3, 4]])
    assert ["the first column has no name" in note for note in read.notes] == [True]


def test_csv_of_statistics_programs_has_a_word_for_no_number(tmp_path: Path) -> None:
    read = read_keypoints(saved(tmp_path, "name,x,y,confidence\nnose,3,4,1\ntail,NA,NA,NA\n", "r.csv"))
    assert read.present.tolist() == [True, False]
    with pytest.raises(InputError, match="line 2: confidence is 'NA'"):
        read_keypoints(saved(tmp_path, "name,x,y,confidence\nnose,3,4,NA\n", "r.csv"))


def test_crowds_of_coco_are_left_out_and_said(tmp_path: Path) -> None:
    document = two_people()
    annotations = document["annotations"]
    assert isinstance(annotations, list)
    annotations[0]["iscrowd"] = 1
    read = read_keypoints_file(saved(tmp_path, document))
    assert read.keypoints.positions[0, 0] == 42
    assert "1 annotations of crowds were left out" in read.notes[0]
    annotations[1]["iscrowd"] = 1
    with pytest.raises(InputError, match="holds no keypoints but those of crowds"):
        read_keypoints(saved(tmp_path, document))


def test_an_instance_is_chosen_by_the_text_of_its_id(tmp_path: Path) -> None:
    assert read_keypoints(saved(tmp_path, two_people()), instance="42").positions[0, 0] == 42


def test_shares_of_the_frame_are_taken_as_pixels_and_said(tmp_path: Path) -> None:
    path = saved(tmp_path, "name,x,y\nnose,0.2,0.4\ntail,0.5,1\n", "points.csv")
    notes = read_keypoints_file(path, frame_size=SIZE).notes
    assert len(notes) == 1
    assert "all coordinates lie in 0 to 1" in notes[0]
    path = saved(tmp_path, "name,x,y\nnose,0.2,0.4\ntail,0.5,1.5\n", "points.csv")
    assert read_keypoints_file(path, frame_size=SIZE).notes == ()


NUMBERS = st.integers(0, 60) | st.floats(-0.5, 60, width=32).map(lambda value: round(value, 3))
PLACES = st.dictionaries(
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=5),
    st.none() | st.tuples(NUMBERS, NUMBERS),
    min_size=1,
    max_size=4,
).filter(lambda places: any(place is not None for place in places.values()))


@settings(max_examples=60, deadline=None)
@given(
    places=PLACES,
    separator=st.sampled_from([",", ";", "\t", "|"]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    columns=st.permutations(["frame", "name", "x", "y"]),
    comma=st.booleans(),
    quoted=st.booleans(),
    decorate=st.sampled_from([str.upper, str.title, lambda name: f" {name} "]),
    frame=st.sampled_from(["3", "3.0", " 3"]),
    absent=st.sampled_from(["", "NaN", "nan", "NA", "null"]),
    start=st.sampled_from(["", "\ufeff", "\n\n"]),
    end=st.sampled_from(["", "\n", "SEPARATORS\n"]),
)
def test_csv_of_any_spreadsheet(
    places: dict[str, tuple[float, float] | None],
    separator: str,
    ending: str,
    columns: list[str],
    comma: bool,
    quoted: bool,
    decorate: Callable[[str], str],
    frame: str,
    absent: str,
    start: str,
    end: str,
) -> None:
    def cell(text: str) -> str:
        return f'"{text}"' if quoted else text

    def number(value: float) -> str:
        return str(value).replace(".", ",") if comma and separator != "," else str(value)

    rows = [[decorate(column) for column in columns]]
    for name, place in places.items():
        x, y = (absent, absent) if place is None else map(number, place)
        values = {"frame": frame, "name": name, "x": x, "y": y}
        rows.append([cell(values[column]) for column in columns])
    text = "\n".join(separator.join(row) for row in rows) + end.replace("SEPARATORS", "\n" + separator * 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.csv"
        path.write_bytes((start + text).replace("\n", ending).encode())
        read = read_keypoints(path, frame=3)
    assert read.names == tuple(places)
    wanted = [(np.nan, np.nan) if place is None else place for place in places.values()]
    np.testing.assert_array_equal(read.positions, np.array(wanted, np.float32))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60), st.sampled_from(["a.csv", "a.json", "a.txt"]))
def test_any_text_is_read_or_refused(content: str | bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
        with contextlib.suppress(InputError):
            read_keypoints(path)
