"""JHMDB: the tree, the two protocols, results as JSON and as .mat."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from propagate.benchmarks.jhmdb import load as load_jhmdb
from propagate.benchmarks.jhmdb.clips import Jhmdb
from propagate.benchmarks.jhmdb.score import PUBLISHED
from propagate.benchmarks.jhmdb.tree import JOINTS, SKELETON, read_pos_img, write_pos_img
from propagate.errors import InputError, UsageError
from propagate.labels import JhmdbCodec
from propagate.labels.compat.jhmdb import decode_cells
from propagate.settings import load_settings
from propagate.types import Frame
from tests.benchmarks.pose_trees import jhmdb_tree, mat, picture, prediction, write_results
from tests.places import PARITY_DATA

GOLDEN = PARITY_DATA
SIZE = (80, 64)  # so that the way to 320 x 320 and back is without rounding: times 4 and times 5


def pose() -> np.ndarray:
    """15 joints in a box from (2, 2) to (32, 42): diagonal 50, so the unit of distances is 30 pixels."""
    joints = np.random.default_rng(0).integers((2, 2), (32, 42), (15, 2)).astype(float)
    joints[0], joints[14] = (2, 2), (32, 42)
    return joints


def sliding(*shifts: float) -> np.ndarray:
    """The pose, moved to the right by so much in each frame."""
    return np.stack([pose() + np.array([shift, 0]) for shift in shifts])


@pytest.fixture
def tree(tmp_path):
    return jhmdb_tree(tmp_path / "JHMDB", {"catch/b_1": sliding(0, 3, 4, 6), "walk/a": sliding(0, 3)}, SIZE)


def golden_tree(root: Path) -> tuple[Path, Path]:
    """The truth of `jhmdb_pck_0` as a tree, and its predictions as .mat files."""
    golden, results = np.load(GOLDEN / "jhmdb_pck_0.npz"), root / "results"
    names = [f"catch/{clip}" for clip in range(int(golden["n_clips"]))]
    (root / "JHMDB" / "splits").mkdir(parents=True)
    lines = "".join(f"{name.split('/')[1]}.avi 2\n" for name in names)
    (root / "JHMDB" / "splits" / "catch_test_split1.txt").write_text(lines)
    for clip, name in enumerate(names):
        truth, size = golden[f"pos_img_{clip}"], golden[f"image_size_{clip}"]
        file = root / "JHMDB" / "joint_positions" / name / "joint_positions.mat"
        file.parent.mkdir(parents=True)
        savemat(file, {"pos_img": truth})
        for number in range(1, truth.shape[2] + 1):
            picture(root / "JHMDB" / "Rename_Images" / name / f"{number:05d}.png", tuple(size.tolist()))
        cells = golden[f"pred_grid_{clip}"].transpose(2, 1, 0).astype(np.float64)
        mat(results / name / "joint_positions.mat", cells * size[::-1] / 40)
    return root / "JHMDB", results


# --- parity with eval_pck.py and data/jhmdb.py


def test_scores_of_matlab_files_are_those_of_eval_pck(tmp_path):
    golden = np.load(GOLDEN / "jhmdb_pck_0.npz")
    data, results = golden_tree(tmp_path)
    scores = load_jhmdb(data, protocol="videowalk").score(results)
    assert not scores.problems
    for threshold, expected in zip(golden["thresholds"], golden["pck"], strict=True):
        assert 100 * scores.totals[f"PCK@{threshold:.1f}"] == pytest.approx(float(expected), abs=1e-9)
    frames = sum(golden[f"pos_img_{clip}"].shape[2] - 1 for clip in range(int(golden["n_clips"])))
    assert scores.totals["coverage"] == pytest.approx(golden["n_counted_per_joint"].sum() / (15 * frames), abs=1e-12)
    (table,) = (table for table in scores.tables if table.file == "pck.csv")
    assert table.columns == ("threshold", "mean", *JOINTS)
    for row, expected in zip(table.rows, golden["pck_per_joint"], strict=True):
        assert [100 * float(text) for text in row[2:]] == pytest.approx(expected.tolist(), abs=0.0051)


def test_the_given_label_becomes_the_grid_of_videowalk(tmp_path):
    golden = np.load(GOLDEN / "jhmdb_labels_0.npz")
    truth = golden["pos_img"].transpose(2, 1, 0) - 1
    for t, expected in zip(range(len(truth)), golden["labels"][int(golden["n_context"]) :], strict=True):
        data = jhmdb_tree(tmp_path / str(t), {"catch/a": np.roll(truth, -t, axis=0)}, tuple(golden["image_size"]))
        benchmark = load_jhmdb(data, protocol="videowalk")
        (clip,) = benchmark.clips
        frame = next(iter(benchmark.frames(clip)))
        label = benchmark.label(clip)
        soft = JhmdbCodec(label.names).encode(label, frame.size, (frame.size[0] // 8, frame.size[1] // 8))
        np.testing.assert_allclose(soft, expected, atol=1e-6, rtol=0)


def test_what_is_written_is_cells_times_width_by_40(tmp_path):
    soft = torch.from_numpy(np.load(GOLDEN / "jhmdb_labels_0.npz")["soft_map"].astype(np.float32))
    data = jhmdb_tree(tmp_path / "JHMDB", {"catch/a": sliding(0, 1)}, (240, 176))
    benchmark = load_jhmdb(data, protocol="videowalk")
    (clip,) = benchmark.clips
    with benchmark.writer(clip, tmp_path) as write:
        for frame in benchmark.frames(clip):
            write(frame, JhmdbCodec(JOINTS).decode(soft, frame))
    written = loadmat(tmp_path / "joint_positions.mat")["pos_img"]
    expected = decode_cells(soft).astype(np.float64) * [176 / 40, 240 / 40]
    assert np.isnan(expected).any()  # a lost joint stays one
    np.testing.assert_allclose(written[:, :, 1].T - 1, expected, rtol=1e-6)


# --- the tree


def test_clips_are_the_test_clips_cut_to_their_poses(tmp_path):
    clips = {"walk/a": sliding(0, 0, 0), "catch/z": sliding(0, 0), "catch/a": sliding(0, 0)}
    data = jhmdb_tree(tmp_path / "JHMDB", clips, SIZE, extra_frames=2)
    benchmark = load_jhmdb(data, protocol="strict")
    assert [clip.name for clip in benchmark.clips] == ["catch/z", "catch/a", "walk/a"]
    assert [path.name for path in benchmark.clips[2].pictures] == ["00001.png", "00002.png", "00003.png"]


def test_frames_are_sorted_by_their_number_and_hidden_files_are_none(tmp_path):
    data = jhmdb_tree(tmp_path / "JHMDB", {"catch/a": sliding(*range(11))}, SIZE)
    folder = data / "Rename_Images" / "catch" / "a"
    for path in list(folder.iterdir()):
        path.rename(folder / f"{int(path.stem)}.png")
    (folder / "._1.png").write_bytes(b"\0")
    (data / "splits" / "._catch_test_split1.txt").write_bytes(b"\0\xff")
    (data / "Rename_Images" / ".AppleDouble").mkdir()
    (clip,) = load_jhmdb(data, protocol="strict").clips
    assert [path.name for path in clip.pictures] == [f"{number}.png" for number in range(1, 12)]


def test_the_skeleton_is_one_tree():
    joined = {0}
    for _ in SKELETON:
        joined |= {end for bone in SKELETON for end in bone if joined & set(bone)}
    assert joined == set(range(15))
    assert len(SKELETON) == 14
    assert {tuple(JOINTS[i] for i in bone) for bone in SKELETON} >= {
        ("right_shoulder", "right_elbow"),
        ("left_elbow", "left_wrist"),
        ("left_hip", "left_knee"),
        ("right_knee", "right_ankle"),
        ("neck", "face"),
    }


@pytest.mark.parametrize("wanted", ["walk/a", "a"])
def test_sequences_by_name(tree, wanted):
    benchmark = load_jhmdb(tree, protocol="videowalk", sequences=[wanted])
    assert [clip.name for clip in benchmark.clips] == ["walk/a"]
    assert benchmark.title == "JHMDB test split 1, 1 of 268 test clips, poses, protocol videowalk"
    assert not benchmark.published
    assert "A subset of 1 test clips" in benchmark.remarks[0]


def test_an_unknown_sequence_is_told_the_nearest(tree):
    with pytest.raises(UsageError, match=r"walk/aa.*Did you mean walk/a\?"):
        load_jhmdb(tree, protocol="strict", sequences=["walk/aa"])


def test_another_number_of_clips_is_said(tree):
    benchmark = load_jhmdb(tree, protocol="videowalk")
    assert "2 test clips; the literature counts 268." in benchmark.remarks
    assert benchmark.title == "JHMDB test split 1, 2 of 268 test clips, poses, protocol videowalk"
    assert not benchmark.published


@pytest.mark.parametrize("subset", [False, True])
def test_all_of_the_test_split_stands_beside_what_was_published(tree, subset):
    sequences = load_jhmdb(tree, protocol="videowalk").sequences * (268 // 2)
    benchmark = Jhmdb(sequences, 1, "videowalk", subset)
    assert [row.totals["PCK@0.1"] for row in benchmark.published] == [0.634, 0.619, 0.611, 0.588]
    assert benchmark.title == "JHMDB test split 1, poses, protocol videowalk"
    assert not any("test clips" in remark for remark in benchmark.remarks)
    assert not Jhmdb(sequences, 1, "strict", subset).published
    assert not Jhmdb(sequences, 2, "videowalk", subset).published
    assert Jhmdb(sequences, 2, "videowalk").title == "JHMDB test split 2, 268 test clips, poses, protocol videowalk"


def test_published_commands_say_the_protocol():
    commands = [row.command for row in PUBLISHED if row.command]
    assert len(commands) == 2
    assert all(" --protocol videowalk " in command for command in commands)


def test_a_folder_above_or_below_is_suggested(tree):
    for given in (tree.parent, tree / "splits", tree / "Rename_Images" / "walk", tree / "gone"):
        with pytest.raises(InputError) as caught:
            load_jhmdb(given, protocol="strict")
        assert caught.value.remedy == f"Did you mean --data {tree}?"


def test_name_and_title_tell_the_protocols_apart(tree):
    videowalk, strict = (load_jhmdb(tree, protocol=protocol) for protocol in ("videowalk", "strict"))
    assert (videowalk.name, strict.name) == ("jhmdb-videowalk", "jhmdb-strict")
    assert videowalk.title == "JHMDB test split 1, 2 of 268 test clips, poses, protocol videowalk"
    assert "Lost joints are left out" in videowalk.remarks[-1]
    assert "Lost joints are wrong" in strict.remarks[-1]


def test_the_settings_that_the_protocol_demands_exist(tree):
    demanded = load_jhmdb(tree, protocol="videowalk").settings
    settings = load_settings("dift_adm_jhmdb", demanded)
    assert settings.labels.keypoints.codec == "jhmdb"
    assert settings.video.short_side == 320
    assert load_jhmdb(tree, protocol="strict").settings == ()


def drop_list(data):
    (data / "splits" / "walk_test_split1.txt").unlink()


def drop_lists(data):
    shutil.rmtree(data / "splits")


def empty_lists(data):
    for path in (data / "splits").iterdir():
        path.write_text("a.avi 1\n")


def strange_line(data):
    (data / "splits" / "walk_test_split1.txt").write_text("a.avi 2\nb.avi 3\n")


def repeated_line(data):
    (data / "splits" / "walk_test_split1.txt").write_text("a.avi 2\n\na.avi 1\n")


def path_in_line(data):
    (data / "splits" / "walk_test_split1.txt").write_text("../../a.avi 2\n")


def parent_in_line(data):
    (data / "splits" / "walk_test_split1.txt").write_text(".. 2\n")


def long_line(data):
    (data / "splits" / "walk_test_split1.txt").write_text(f"{'a' * 5000}.avi 2\n")


def pipe_for_a_list(data):
    drop_list(data)
    os.mkfifo(data / "splits" / "walk_test_split1.txt")


def strange_name(data):
    (data / "splits" / "walk_test_split1.txt").rename(data / "splits" / os.fsdecode(b"w\xff_test_split1.txt"))


def binary_list(data):
    (data / "splits" / "walk_test_split1.txt").write_bytes(b"\xff\xfe")


def drop_mat(data):
    (data / "joint_positions" / "walk" / "a" / "joint_positions.mat").unlink()


def cut_mat(data):
    path = data / "joint_positions" / "walk" / "a" / "joint_positions.mat"
    path.write_bytes(path.read_bytes()[:150])


def garbage_mat(data):
    (data / "joint_positions" / "walk" / "a" / "joint_positions.mat").write_bytes(b"no matrix here" * 20)


def keyless_mat(data):
    savemat(data / "joint_positions" / "walk" / "a" / "joint_positions.mat", {"pos_world": np.zeros((2, 15, 2))})


def misshapen_mat(data):
    savemat(data / "joint_positions" / "walk" / "a" / "joint_positions.mat", {"pos_img": np.zeros((2, 14, 2))})


def text_mat(data):
    texts = np.full((2, 15, 2), "one", object)
    savemat(data / "joint_positions" / "walk" / "a" / "joint_positions.mat", {"pos_img": texts})


def nan_mat(data):
    mat(data / "joint_positions" / "walk" / "a" / "joint_positions.mat", np.full((2, 15, 2), np.nan))


def far_mat(data):
    truth = sliding(0, 1, 1e9)
    mat(data / "joint_positions" / "walk" / "a" / "joint_positions.mat", truth[1:])


def pipe_for_a_mat(data):
    drop_mat(data)
    os.mkfifo(data / "joint_positions" / "walk" / "a" / "joint_positions.mat")


def frame_twice(data):
    folder = data / "Rename_Images" / "walk" / "a"
    shutil.copy(folder / "00001.png", folder / "1.png")


def pipe_for_a_frame(data):
    drop_frame(data)
    os.mkfifo(data / "Rename_Images" / "walk" / "a" / "00002.png")


def loop_for_a_frame(data):
    drop_frame(data)
    (data / "Rename_Images" / "walk" / "a" / "00002.png").symlink_to("00002.png")


def single_pose(data):
    mat(data / "joint_positions" / "walk" / "a" / "joint_positions.mat", np.zeros((0, 15, 2)))


def drop_frames(data):
    shutil.rmtree(data / "Rename_Images" / "walk" / "a")


def drop_frame(data):
    (data / "Rename_Images" / "walk" / "a" / "00002.png").unlink()


def broken_frame(data):
    (data / "Rename_Images" / "walk" / "a" / "00001.png").write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_list, r"splits lacks walk_test_split1.txt"),
        (drop_lists, r"splits lacks catch_test_split1.txt, walk_test_split1.txt"),
        (empty_lists, r"name no test clip"),
        (strange_line, r"Line 2 of .*walk_test_split1.txt is not `VIDEO.avi K`.*b.avi 3"),
        (repeated_line, r"Line 3 of .*repeats a video"),
        (path_in_line, r"Line 1 of .*is not `VIDEO.avi K`"),
        (binary_list, r"walk_test_split1.txt is not UTF-8"),
        (parent_in_line, r"Line 1 of .*is not `VIDEO.avi K`"),
        (long_line, r"Line 1 of .*is not `VIDEO.avi K`"),
        (pipe_for_a_list, r"walk_test_split1.txt is a pipe"),
        (strange_name, r"name is not UTF-8: w\\xff"),
        (far_mat, r"pos_img of walk/a has positions far outside"),
        (pipe_for_a_mat, r"joint_positions.mat is a pipe"),
        (frame_twice, r"walk/a has frame 1 twice: 00001.png and 1.png"),
        (pipe_for_a_frame, r"Rename_Images/walk/a lacks 00002.png"),
        (loop_for_a_frame, r"Rename_Images/walk/a lacks 00002.png"),
        (drop_mat, r"1 of 2 .*walk/a/joint_positions.mat is missing"),
        (cut_mat, r"walk/a/joint_positions.mat cannot be read as a .mat file"),
        (garbage_mat, r"walk/a/joint_positions.mat cannot be read as a .mat file"),
        (keyless_mat, r"walk/a/joint_positions.mat has no pos_img"),
        (misshapen_mat, r"pos_img in .*walk/a/joint_positions.mat is float64 \(2, 14, 2\), not numbers \(2, 15, T\)"),
        (text_mat, r"walk/a/joint_positions.mat is .*not numbers"),
        (nan_mat, r"pos_img of walk/a has positions that are not finite"),
        (single_pose, r"walk/a has 0 poses"),
        (drop_frames, r"Rename_Images/walk/a is missing"),
        (drop_frame, r"Rename_Images/walk/a lacks 00002.png"),
        (broken_frame, r"walk/a/00001.png is not a picture that can be read"),
    ],
)
def test_a_tree_with_a_fault_says_which(tree, damage, message):
    damage(tree)
    with pytest.raises(InputError, match=message):
        load_jhmdb(tree, protocol="videowalk")


def test_all_faults_are_in_one_message(tree):
    drop_mat(tree)
    shutil.rmtree(tree / "Rename_Images" / "catch" / "b_1")
    with pytest.raises(InputError, match=r"2 of 2 .*catch/b_1 is missing; .*walk/a/joint_positions.mat is missing"):
        load_jhmdb(tree, protocol="strict")


def test_an_empty_folder_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match=r"splits lacks CLASS_test_split1.txt"):
        load_jhmdb(tmp_path, protocol="strict")


def test_a_fault_elsewhere_does_not_matter_to_a_subset(tree):
    drop_mat(tree)
    assert load_jhmdb(tree, protocol="strict", sequences=["catch/b_1"]).clips


def test_a_frame_of_another_size_ends_the_clip(tree):
    picture(tree / "Rename_Images" / "walk" / "a" / "00002.png", (10, 10))
    benchmark = load_jhmdb(tree, protocol="strict")
    with pytest.raises(InputError, match=r"00002.png is 10x10, the first frame of its clip is 64x80"):
        list(benchmark.frames(benchmark.clips[1]))


# --- the protocols


def test_videowalk_shows_squares(tree):
    benchmark = load_jhmdb(tree, protocol="videowalk")
    frames = list(benchmark.frames(benchmark.clips[0]))
    assert [(frame.index, frame.size) for frame in frames] == [(i, (320, 320)) for i in range(4)]
    np.testing.assert_array_equal(benchmark.label(benchmark.clips[0]).positions, pose() * [5, 4])


def test_strict_shows_the_frames_as_they_are(tree):
    benchmark = load_jhmdb(tree, protocol="strict")
    assert [frame.size for frame in benchmark.frames(benchmark.clips[0])] == [SIZE] * 4
    label = benchmark.label(benchmark.clips[0])
    np.testing.assert_array_equal(label.positions, pose())
    assert label.names == JOINTS
    assert label.skeleton == SKELETON


@pytest.mark.parametrize("protocol", ["videowalk", "strict"])
def test_end_to_end(tree, tmp_path, protocol):
    """The first label copied: 3, 4 and 6 of 30 pixels away. A distance of exactly the threshold is right."""
    benchmark = load_jhmdb(tree, protocol=protocol)
    scores = benchmark.score(write_results(benchmark, tmp_path / "results"))
    # the mean of the joints, each over the four scored frames of both clips together: three at 0.1 or less
    assert scores.totals == pytest.approx(
        {"PCK@0.1": 2 / 4, "PCK@0.2": 1, "PCK@0.3": 1, "PCK@0.4": 1, "PCK@0.5": 1, "coverage": 1}
    )
    assert scores.clips["catch/b_1"]["PCK@0.1"] == pytest.approx(1 / 3)
    assert scores.clips["walk/a"]["PCK@0.1"] == 1
    curve = scores.curves[0]
    assert (curve.clip, curve.target, curve.frames) == ("catch/b_1", "joints", (1, 2, 3))
    assert curve.values["PCK@0.1"].tolist() == [1, 0, 0]
    assert curve.values["PCK@0.2"].tolist() == [1, 1, 1]
    assert not scores.problems
    assert scores.remarks == ("Coverage: 60 of 60 pairs of frame and joint counted (100.0%).",)
    tables = {table.file: table for table in scores.tables}
    assert tables["pck.csv"].rows[0] == ("0.1", *["0.5000"] * 16)
    assert tables["per-sequence_pck.csv"].rows[0] == ("catch/b_1", "3", "0.3333", *["1.0000"] * 5)
    assert tables["curves.csv"].rows[1] == ("catch/b_1", "2", "0.0", *["1.0"] * 4)


def lose_the_corner(label, frame):
    """The joint in the far corner of the box is lost from the second frame on."""
    positions = label.positions.copy()
    if frame >= 1:
        positions[14] = np.nan
    return positions


def test_videowalk_leaves_lost_joints_out_and_draws_the_box_without_them(tmp_path):
    first = pose()
    first[1:14] = np.clip(first[1:14], None, (26, 20))
    first[1] = (26, 20)  # without joint 14 the box has a diagonal of 30: the unit is 18 pixels, not 30
    data = jhmdb_tree(tmp_path / "JHMDB", {"walk/a": np.stack([first, first + np.array([3, 0])])}, SIZE)
    benchmark = load_jhmdb(data, protocol="videowalk")
    everything = benchmark.score(write_results(benchmark, tmp_path / "all"))
    assert everything.totals["PCK@0.1"] == 1
    scores = benchmark.score(write_results(benchmark, tmp_path / "results", lose_the_corner))
    assert scores.totals["PCK@0.1"] == 0
    assert scores.totals["PCK@0.2"] == 1
    assert scores.totals["coverage"] == pytest.approx(14 / 15)
    assert "Never counted, and therefore not in the mean of the joints: left_ankle." in scores.remarks
    (table,) = (table for table in scores.tables if table.file == "pck.csv")
    assert table.rows[0][-1] == ""


def test_strict_counts_lost_joints_as_wrong(tmp_path):
    benchmark = load_jhmdb(jhmdb_tree(tmp_path / "JHMDB", {"walk/a": sliding(0, 3)}, SIZE), protocol="strict")
    scores = benchmark.score(write_results(benchmark, tmp_path / "results", lose_the_corner))
    assert scores.totals["coverage"] == 1
    for threshold in (0.1, 0.5):
        assert scores.totals[f"PCK@{threshold}"] == pytest.approx(14 / 15)


@pytest.fixture
def leaving(tmp_path):
    """Joint 1 is outside in the first frame, joint 2 in the second; joint 3 lies on the border, half a pixel out."""
    truth = sliding(0, 0, 0)
    truth[0, 1], truth[1, 2], truth[1, 3] = (-3, 5), (5, 79.6), (-0.5, 79.5)
    truth[0, 3], truth[2, 3] = truth[1, 3], truth[1, 3]
    return jhmdb_tree(tmp_path / "JHMDB", {"walk/a": truth}, SIZE)


def test_strict_leaves_out_what_is_outside_of_the_picture(leaving, tmp_path):
    benchmark = load_jhmdb(leaving, protocol="strict")
    assert np.flatnonzero(~benchmark.label(benchmark.clips[0]).present).tolist() == [1]
    scores = benchmark.score(write_results(benchmark, tmp_path / "results"))
    assert scores.totals["coverage"] == pytest.approx((2 * 15 - 3) / (2 * 15))
    assert scores.totals["PCK@0.1"] == 1


def test_videowalk_counts_what_is_outside_of_the_picture(leaving, tmp_path):
    benchmark = load_jhmdb(leaving, protocol="videowalk")
    assert benchmark.label(benchmark.clips[0]).present.all()

    def middle(label, _):
        return np.full_like(label.positions, 160)

    assert benchmark.score(write_results(benchmark, tmp_path / "results", middle)).totals["coverage"] == 1


@pytest.mark.parametrize(("x", "coverage"), [(0, 1), (-0.25, 14 / 15), (np.nan, 14 / 15)])
def test_videowalk_loses_a_joint_by_its_x(tree, tmp_path, x, coverage):
    benchmark = load_jhmdb(tree, protocol="videowalk", sequences=["walk/a"])
    positions = sliding(0, 3)
    positions[1, 4] = (x, -50)
    mat(tmp_path / "walk" / "a" / "joint_positions.mat", positions)
    assert benchmark.score(tmp_path).totals["coverage"] == pytest.approx(coverage)


# --- results


def test_matlab_files_and_json_alone_have_the_same_score(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="videowalk")
    results = write_results(benchmark, tmp_path / "results", lose_the_corner)
    both = benchmark.score(results)
    for clip in benchmark.clips:
        (results / clip.name / "keypoints.json").unlink()
    assert benchmark.score(results).totals == both.totals


def test_matlab_files_go_around(tmp_path):
    positions = np.random.default_rng(1).normal(100, 90, (4, 15, 2))
    positions[1, 2] = np.nan
    write_pos_img(tmp_path / "a.mat", positions)
    write_pos_img(tmp_path / "b.mat", positions)
    written = loadmat(tmp_path / "a.mat")["pos_img"]
    assert written.shape == (2, 15, 4)
    np.testing.assert_allclose(written.transpose(2, 1, 0), positions + 1)
    assert (tmp_path / "a.mat").read_bytes() == (tmp_path / "b.mat").read_bytes()


def test_a_matlab_file_cut_anywhere_is_an_input_error(tmp_path):
    path = tmp_path / "joint_positions.mat"
    write_pos_img(path, sliding(0, 1))
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"joint_positions.mat (cannot be read|has no pos_img)"):
            read_pos_img(path)


@pytest.mark.parametrize("value", [1e300, -1e300, np.inf, np.nan, 1e7])
def test_absurd_predictions_are_wrong_and_can_be_drawn(tree, tmp_path, value):
    benchmark = load_jhmdb(tree, protocol="strict", sequences=["walk/a"])
    positions = sliding(0, 3, 500)
    positions[1:, 4] = value
    mat(tmp_path / "walk" / "a" / "joint_positions.mat", positions)
    assert benchmark.score(tmp_path).totals["PCK@0.5"] < 1
    assert len(benchmark.compare(benchmark.clips[0], tmp_path, 1)) == 3


def test_more_frames_than_the_truth_are_ignored(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="strict", sequences=["walk/a"])
    mat(tmp_path / "walk" / "a" / "joint_positions.mat", sliding(0, 3, 500, 500))
    assert benchmark.score(tmp_path).totals["PCK@0.1"] == 1


def broken_json(path):
    path.write_text("{")


def binary_json(path):
    path.write_bytes(b"\xff\xfe\x00")


def short_json(path):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "frames": document["frames"][:-2]}))


def repeated_frame(path):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "frames": [*document["frames"], document["frames"][2]]}))


def other_joints(path):
    path.write_text(path.read_text().replace("left_wrist", "left_thumb"))


def other_size(path):
    path.write_text(path.read_text().replace('"width": 64', '"width": 320'))


def other_positions(path):
    document = json.loads(path.read_text())
    document["frames"][2]["points"]["neck"][0] += 1
    path.write_text(json.dumps(document))


def short_mat(path):
    path.unlink()
    mat(path.with_name("joint_positions.mat"), sliding(0, 3, 4))


def no_files(path):
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_json, "keypoints.json is not JSON"),
        (binary_json, "keypoints.json is not UTF-8"),
        (short_json, "keypoints.json lacks frame 2, 3."),
        (repeated_frame, "keypoints.json has frame 2 twice"),
        (other_joints, "keypoints.json has the joints neck, .*left_thumb"),
        (other_size, "was made for 320x80 pixels, the frames are 64x80"),
        (other_positions, "keypoints.json and joint_positions.mat in .* differ"),
        (short_mat, "joint_positions.mat ends after 3 of 4 frames"),
        (no_files, "has neither keypoints.json nor joint_positions.mat"),
    ],
)
def test_broken_results_are_a_problem_of_their_clip(tree, tmp_path, damage, message):
    benchmark = load_jhmdb(tree, protocol="strict")
    results = write_results(benchmark, tmp_path / "results")
    damage(results / "catch" / "b_1" / "keypoints.json")
    scores = benchmark.score(results)
    assert list(scores.clips) == ["walk/a"]
    assert scores.totals["PCK@0.1"] == 1
    (sentence,) = scores.problems["catch/b_1"]
    assert re.search(message, sentence)
    assert "Only 1 of 2 clips were scored, without catch/b_1." in scores.remarks


def test_nothing_to_score_is_an_error(tree, tmp_path):
    with pytest.raises(InputError, match=r"No clip in .* could be scored.*has neither"):
        load_jhmdb(tree, protocol="strict").score(tmp_path)


def test_joints_in_another_order_are_the_same_joints(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="strict", sequences=["walk/a"])
    results = write_results(benchmark, tmp_path / "results")
    path = results / "walk" / "a" / "keypoints.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "names": document["names"][::-1]}))
    assert benchmark.score(results).totals["PCK@0.1"] == 1


def test_an_interrupted_clip_leaves_nothing(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="strict")
    clip, folder = benchmark.clips[0], tmp_path / "results"
    folder.mkdir()

    def run():
        with benchmark.writer(clip, folder) as write:
            for frame in benchmark.frames(clip):
                if frame.index == 2:
                    raise KeyboardInterrupt
                write(frame, prediction(frame, benchmark.label(clip), pose()))

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not list(folder.iterdir())


def test_a_clip_without_frames_is_an_error(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="strict")
    with pytest.raises(InputError, match="there is no frame"), benchmark.writer(benchmark.clips[0], tmp_path):
        pass
    assert not list(tmp_path.glob("*.mat"))


@pytest.mark.parametrize("protocol", ["videowalk", "strict"])
def test_pictures_of_a_frame(tree, tmp_path, protocol):
    benchmark = load_jhmdb(tree, protocol=protocol)
    results = write_results(benchmark, tmp_path / "results")
    right, wrong = (benchmark.compare(benchmark.clips[0], results, frame) for frame in (1, 2))
    assert {picture.shape for picture in (*right, *wrong)} == {(600, 480, 3)}  # short side 480
    blue, orange = ((86, 180, 233), (213, 94, 0))
    assert has_color(right[2], blue)
    assert not has_color(right[2], orange)
    assert has_color(wrong[2], orange)
    assert not has_color(wrong[2], blue)


def has_color(picture, color):
    return bool((picture == color).all(2).any())


def test_a_lost_joint_is_crossed_out(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="strict")
    results = write_results(benchmark, tmp_path / "results", lambda label, frame: label.positions + 1000 * (frame > 9))
    lost = write_results(benchmark, tmp_path / "lost", lambda label, _: np.full_like(label.positions, np.nan))
    found = benchmark.compare(benchmark.clips[0], results, 1)[2]
    crossed = benchmark.compare(benchmark.clips[0], lost, 1)[2]
    assert not has_color(found, (213, 94, 0))
    assert has_color(crossed, (213, 94, 0))
    assert not has_color(crossed, (86, 180, 233))


def test_it_can_be_sent_to_another_process(tree, tmp_path):
    benchmark = load_jhmdb(tree, protocol="strict")
    copy = pickle.loads(pickle.dumps(benchmark))
    assert copy.clips == benchmark.clips
    results = write_results(copy, tmp_path / "results")
    assert copy.score(results).totals == benchmark.score(results).totals


def test_times_are_those_of_a_folder(tree):
    benchmark = load_jhmdb(tree, protocol="videowalk")
    frames: list[Frame] = list(benchmark.frames(benchmark.clips[0]))
    assert [frame.time_s for frame in frames] == [0.0, 0.04, 0.08, 0.12]
