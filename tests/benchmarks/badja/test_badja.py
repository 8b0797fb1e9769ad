"""BADJA: the annotations, the scaling, what counts and what is right."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from propagate.benchmarks.badja import load as load_badja
from propagate.benchmarks.badja.tree import CATALOG, JOINTS, SKELETON
from propagate.errors import InputError, UsageError
from tests.benchmarks.pose_trees import badja_tree, picture, write_results

SIZE = (135, 240)  # an eighth of the full resolution: positions are exact in float32
NUMBERS = list(CATALOG)
FRAMES = (3, 5, 9)


def joints(shift: int = 0) -> list[list[int]]:
    """(row, column) of all 37 at full resolution, `shift` columns to the right; (0, 0) outside of the catalog."""
    return [[100 + 20 * i, 200 + 30 * i + shift] if i in CATALOG else [0, 0] for i in range(37)]


def seen(*hidden: int) -> list[bool]:
    return [i in CATALOG and i not in hidden for i in range(37)]


def square_mask(value: int = 255, side: int = 10) -> np.ndarray:
    """An area of 100 pixels: joints are right below 0.2 * 10 = 2 pixels, 16 at full resolution."""
    mask = np.zeros(SIZE, np.uint8)
    mask[20 : 20 + side, 30 : 30 + side] = value
    return mask


@pytest.fixture
def tree(tmp_path):
    """Joints move by 15 and then by 16 columns, which is just not right any more."""
    annotated = {number: (joints(shift), seen()) for number, shift in zip(FRAMES, (0, 15, 16), strict=True)}
    return badja_tree(tmp_path, "camel", annotated, square_mask())


def load(tree, **options):
    badja, davis = tree
    return load_badja(badja, davis=davis, **options)


def annotations(tree, name="camel"):
    return tree[0] / "joint_annotations" / f"{name}.json"


def test_a_clip_is_every_frame_from_the_first_to_the_last_annotated_one(tree):
    benchmark = load(tree)
    (clip,) = benchmark.clips
    assert [path.stem for path in clip.pictures] == [f"{number:05d}" for number in range(3, 10)]
    assert [(frame.index, frame.size) for frame in benchmark.frames(clip)] == [(i, SIZE) for i in range(7)]


def test_positions_are_swapped_and_scaled_with_half_pixel_centers(tree):
    benchmark = load(tree)
    label = benchmark.label(benchmark.clips[0])
    assert label.names == JOINTS
    row, column = joints()[33]
    np.testing.assert_array_equal(
        label.positions[JOINTS.index("nose")], [(column + 0.5) / 8 - 0.5, (row + 0.5) / 8 - 0.5]
    )


def test_480p_has_a_scale_for_each_axis(tmp_path):
    mask = np.zeros((480, 854), np.uint8)
    mask[:9, :9] = 255
    tree = badja_tree(tmp_path, "dog", {0: (joints(), seen()), 1: (joints(), seen())}, mask)
    benchmark = load(tree)
    nose = benchmark.label(benchmark.clips[0]).positions[JOINTS.index("nose")]
    row, column = joints()[33]
    np.testing.assert_allclose(nose, [(column + 0.5) * 854 / 1920 - 0.5, (row + 0.5) * 480 / 1080 - 0.5], rtol=1e-6)


def test_the_skeleton_is_one_tree():
    joined = {0}
    for _ in SKELETON:
        joined |= {end for bone in SKELETON for end in bone if joined & set(bone)}
    assert joined == set(range(20))
    assert len(SKELETON) == 19
    names = {tuple(JOINTS[i] for i in bone) for bone in SKELETON}
    assert names >= {("upper_left_1", "upper_left_2"), ("tail_3", "tail_6"), ("jaw", "nose"), ("nose", "left_ear")}


def test_end_to_end(tree, tmp_path):
    """The first label copied: 15/8 pixels away is below 2, 16/8 is not."""
    benchmark = load(tree)
    scores = benchmark.score(write_results(benchmark, tmp_path / "results"))
    assert scores.totals == {"PCK@0.2": 0.5, "coverage": 1.0}
    assert scores.clips == {"camel": {"PCK@0.2": 0.5, "coverage": 1.0}}
    (curve,) = scores.curves
    assert (curve.clip, curve.target, curve.frames) == ("camel", "joints", (2, 6))
    assert curve.values["PCK@0.2"].tolist() == [1.0, 0.0]
    tables = {table.file: table for table in scores.tables}
    assert tables["pck.csv"].columns == ("sequence", "PCK@0.2", "coverage", *JOINTS)
    assert tables["pck.csv"].rows == (
        ("camel", "0.5000", "1.0000", *["0.5000"] * 20),
        ("mean", "0.5000", "1.0000", *["0.5000"] * 20),
    )
    assert tables["curves.csv"].rows == (("camel", "2", "1.0"), ("camel", "6", "0.0"))
    assert scores.remarks == (
        "Coverage: 40 of 40 pairs of frame and joint counted (100.0%), 0 of them lost and therefore wrong.",
    )
    assert not scores.problems


def test_what_counts(tmp_path):
    """Joint 8 is hidden when it is scored, 9 only in the first frame, 10 has no position in the first frame."""
    first, second = joints(), joints()
    first[10] = [0, 0]
    second[8] = joints(500)[8]
    tree = badja_tree(tmp_path, "camel", {0: (first, seen(9, 10)), 1: (second, seen(8))}, square_mask())
    benchmark = load(tree)
    assert [JOINTS[i] for i in np.flatnonzero(~benchmark.label(benchmark.clips[0]).present)] == ["upper_right_3"]
    scores = benchmark.score(write_results(benchmark, tmp_path / "results"))
    assert scores.totals == {"PCK@0.2": 1.0, "coverage": 18 / 20}
    row = scores.tables[0].rows[0]
    assert row[3:6] == ("", "1.0000", "")


def test_a_visible_joint_without_position_does_not_count(tmp_path):
    second = joints()
    second[33] = [0, 0]
    tree = badja_tree(tmp_path, "camel", {0: (joints(), seen()), 1: (second, seen())}, square_mask())
    benchmark = load(tree)
    scores = benchmark.score(write_results(benchmark, tmp_path / "results"))
    assert scores.totals == {"PCK@0.2": 1.0, "coverage": 19 / 20}


def test_lost_joints_are_wrong(tree, tmp_path):
    def lose_five(label, _):
        return np.where(np.arange(20)[:, None] < 5, np.nan, label.positions)

    benchmark = load(tree)
    scores = benchmark.score(write_results(benchmark, tmp_path / "results", lose_five))
    assert scores.totals == {"PCK@0.2": 15 / 40, "coverage": 1.0}
    assert "10 of them lost and therefore wrong" in scores.remarks[0]


def test_the_score_is_the_mean_of_the_videos(tmp_path):
    """One video with a frame that is all wrong, one with two that are all right: a half, not two thirds."""
    badja_tree(tmp_path, "dog", {0: (joints(), seen()), 1: (joints(99), seen())}, square_mask())
    two = {0: (joints(), seen()), 1: (joints(), seen(8)), 2: (joints(), seen())}
    tree = badja_tree(tmp_path, "bear", two, square_mask())
    benchmark = load(tree)
    assert [clip.name for clip in benchmark.clips] == ["bear", "dog"]
    scores = benchmark.score(write_results(benchmark, tmp_path / "results"))
    assert scores.totals == {"PCK@0.2": 0.5, "coverage": 59 / 60}
    assert benchmark.name == "badja"
    assert benchmark.title == "BADJA, 2 of the 7 videos in DAVIS, 480p"
    assert benchmark.settings == ()
    assert benchmark.remarks == ("A subset: 2 of 7 videos (bear, dog).",)
    assert benchmark.published == ()


def test_all_seven_videos_stand_beside_the_published_scores(tmp_path):
    for name in ("bear", "camel", "cows", "dog", "dog-agility", "horsejump-high", "horsejump-low"):
        tree = badja_tree(tmp_path, name, {0: (joints(), seen()), 1: (joints(), seen())}, square_mask())
    benchmark = load(tree)
    assert benchmark.remarks == ()
    assert {row.method: row.totals["PCK@0.2"] for row in benchmark.published} == {
        "PIPs": 0.623,
        "DINO": 0.505,
        "RAFT": 0.456,
    }


def test_every_object_of_a_mask_counts_and_several_are_said(tmp_path):
    """19 pixels of object 1 and 81 of object 2 are one area of 100."""
    mask = square_mask(1)
    mask[20:29, 30:39] = 2
    tree = badja_tree(tmp_path, "horsejump-high", {0: (joints(), seen()), 1: (joints(15), seen())}, mask)
    benchmark = load(tree)
    assert any("horsejump-high have several objects" in remark for remark in benchmark.remarks)
    assert benchmark.score(write_results(benchmark, tmp_path / "results")).totals["PCK@0.2"] == 1


def test_the_area_is_that_of_the_scored_frame(tree, tmp_path):
    """A larger mask in the last frame makes its 2 pixels right."""
    Image.fromarray(square_mask(side=11)).save(tree[1] / "Annotations" / "480p" / "camel" / "00009.png")
    benchmark = load(tree)
    assert benchmark.score(write_results(benchmark, tmp_path / "results")).totals["PCK@0.2"] == 1


def test_a_sequence_by_name(tmp_path):
    badja_tree(tmp_path, "dog", {0: (joints(), seen()), 1: (joints(), seen())}, square_mask())
    tree = badja_tree(tmp_path, "bear", {0: (joints(), seen()), 1: (joints(), seen())}, square_mask())
    assert [clip.name for clip in load(tree, sequences=["dog"]).clips] == ["dog"]
    with pytest.raises(UsageError, match=r"--sequence cow.*Did you mean cows\?"):
        load(tree, sequences=["cow"])
    with pytest.raises(InputError, match=r"cows.json does not exist"):
        load(tree, sequences=["cows", "dog"])


def test_videos_outside_of_davis_are_not_looked_at(tree):
    annotations(tree, "rs_dog").write_text("no annotation")
    assert [clip.name for clip in load(tree).clips] == ["camel"]


def edit(tree, change):
    path = annotations(tree)
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


def drop_annotations(tree):
    annotations(tree).unlink()


def broken_json(tree):
    annotations(tree).write_text("[{")


def no_list(tree):
    annotations(tree).write_text('{"joints": []}')


def few_joints(tree):
    edit(tree, lambda entries: entries[1]["joints"].pop())


def no_visibility(tree):
    edit(tree, lambda entries: entries[1].pop("visibility"))


def frame_without_number(tree):
    edit(tree, lambda entries: entries[1].update(image_path="camel/last.jpg"))


def frame_twice(tree):
    edit(tree, lambda entries: entries[1].update(image_path=entries[0]["image_path"]))


def frame_far_away(tree):
    edit(tree, lambda entries: entries[-1].update(image_path="camel/99999999999999999999.jpg"))


def frame_far_enough_to_wait_for(tree):
    edit(tree, lambda entries: entries[-1].update(image_path="camel/4000000000.jpg"))


def joint_far_away(tree):
    edit(tree, lambda entries: entries[-1]["joints"].__setitem__(8, [1e30, 5]))


def pipe(tree):
    annotations(tree).unlink()
    os.mkfifo(annotations(tree))


def one_frame(tree):
    edit(tree, lambda entries: entries.__delitem__(slice(1, None)))


def drop_pictures(tree):
    for number in (5, 7):
        (tree[1] / "JPEGImages" / "480p" / "camel" / f"{number:05d}.jpg").unlink()


def drop_folder(tree):
    shutil.rmtree(tree[1] / "JPEGImages")


def drop_mask(tree):
    (tree[1] / "Annotations" / "480p" / "camel" / "00009.png").unlink()


def other_mask(tree):
    Image.fromarray(square_mask()[:100]).save(tree[1] / "Annotations" / "480p" / "camel" / "00009.png")


def empty_mask(tree):
    Image.fromarray(square_mask(0)).save(tree[1] / "Annotations" / "480p" / "camel" / "00009.png")


def other_aspect(tree):
    picture(tree[1] / "JPEGImages" / "480p" / "camel" / "00003.jpg", (135, 180))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_annotations, r"joint_annotations has none of bear, camel"),
        (broken_json, r"camel.json is not JSON"),
        (no_list, r"camel.json is not a list of annotated frames"),
        (few_joints, r"camel.json is not a list of annotated frames: 1.joints: List should have at least 37 items"),
        (no_visibility, r"camel.json is not a list of annotated frames: 1.visibility: Field required"),
        (frame_without_number, r"camel.json names the frame 'camel/last.jpg'"),
        (frame_twice, r"camel.json names the frame .*00003.jpg': not a number, or a repeated one"),
        (frame_far_away, r"camel.json names the frame 'camel/99999999999999999999.jpg': not a number"),
        (frame_far_enough_to_wait_for, r"camel.json names the frame 'camel/4000000000.jpg': not a number"),
        (joint_far_away, r"camel: joints lie far outside of the frames"),
        (pipe, r"camel.json is a pipe"),
        (one_frame, r"camel.json has 1 annotated frames"),
        (drop_pictures, r"camel: missing .*JPEGImages/480p/camel/00005.jpg, .*00007.jpg"),
        (drop_folder, r"camel: missing .*JPEGImages/480p/camel"),
        (drop_mask, r"camel: missing .*Annotations/480p/camel/00009.png"),
        (other_mask, r"00009.png is 240x100, the frames are 240x135"),
        (empty_mask, r"00009.png has no object"),
        (other_aspect, r"camel: the frames are 180x135, but the joints are annotated on frames of 16:9"),
    ],
)
def test_a_tree_with_a_fault_says_which(tree, damage, message):
    damage(tree)
    with pytest.raises(InputError, match=message):
        load(tree)


@pytest.mark.parametrize("place", ["..", "joint_annotations", "gone"])
def test_a_wrong_level_of_badja_is_told_the_right_one(tree, place):
    with pytest.raises(InputError, match=r"--data .* has no folder joint_annotations") as caught:
        load_badja((tree[0] / place).resolve(), davis=tree[1])
    assert caught.value.remedy == f"Did you mean --data {tree[0]}?"


@pytest.mark.parametrize("place", ["..", "JPEGImages", "JPEGImages/480p", "Annotations/480p/camel", "gone"])
@pytest.mark.parametrize("sequences", [[], ["camel"]])
def test_a_wrong_level_of_davis_is_told_the_right_one(tree, place, sequences):
    with pytest.raises(InputError, match=r"--davis .* has neither JPEGImages nor Annotations") as caught:
        load_badja(tree[0], davis=(tree[1] / place).resolve(), sequences=sequences)
    assert caught.value.remedy == f"Did you mean --davis {tree[1]}?"


def test_swapped_folders_are_told(tree):
    with pytest.raises(
        InputError, match=r"--davis .*BADJA holds BADJA's joint_annotations\. Swap the folders of --data"
    ):
        load_badja(tree[1], davis=tree[0])


def test_a_folder_without_anything_near_says_what_to_give(tree, tmp_path):
    far = tmp_path / "a" / "b" / "c" / "d"
    far.mkdir(parents=True)
    with pytest.raises(InputError, match="Give BADJA's folder with --data"):
        load_badja(far, davis=tree[1])
    with pytest.raises(InputError, match="Give the folder that holds JPEGImages and Annotations"):
        load_badja(tree[0], davis=far)


def short_results(path):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "frames": document["frames"][:-1]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"keypoints.json is missing"),
        (lambda path: path.write_text("[]"), r"keypoints.json"),
        (lambda path: path.write_text(path.read_text().replace("tail_6", "tail_7")), r"has the joints .*tail_7"),
        (short_results, r"lacks the annotated frame 6"),
    ],
)
def test_broken_results_are_a_problem_of_their_clip(tmp_path, damage, message):
    badja_tree(tmp_path, "dog", {0: (joints(), seen()), 6: (joints(), seen())}, square_mask())
    tree = badja_tree(tmp_path, "bear", {0: (joints(), seen()), 6: (joints(), seen())}, square_mask())
    benchmark = load(tree)
    results = write_results(benchmark, tmp_path / "results")
    damage(results / "dog" / "keypoints.json")
    scores = benchmark.score(results)
    assert list(scores.clips) == ["bear"]
    assert re.search(message, scores.problems["dog"][0])
    assert "Only 1 of 2 clips were scored, without dog." in scores.remarks
    damage(results / "bear" / "keypoints.json")
    with pytest.raises(InputError, match=r"No clip in .* could be scored"):
        benchmark.score(results)


def test_only_annotated_frames_are_needed(tree, tmp_path):
    benchmark = load(tree)
    path = write_results(benchmark, tmp_path / "results") / "camel" / "keypoints.json"
    document = json.loads(path.read_text())
    kept = [entry for entry in document["frames"] if entry["frame"] in (2, 6)]
    path.write_text(json.dumps({**document, "frames": kept}))
    assert benchmark.score(tmp_path / "results").totals["PCK@0.2"] == 0.5


def has_color(pixels, color):
    return bool((pixels == color).all(2).any())


def test_pictures_of_a_frame(tree, tmp_path):
    benchmark = load(tree)
    results = write_results(benchmark, tmp_path / "results")
    (clip,) = benchmark.clips
    given, right, between, wrong = (benchmark.compare(clip, results, frame) for frame in (0, 2, 3, 6))
    assert {pixels.shape for pixels in (*given, *right, *between, *wrong)} == {(480, 853, 3)}
    blue, orange = (86, 180, 233), (213, 94, 0)
    assert has_color(right[2], blue)
    assert not has_color(right[2], orange)
    assert has_color(wrong[2], orange)
    assert not has_color(wrong[2], blue)
    for pixels in (given[2], between[2]):  # not scored
        assert not has_color(pixels, blue)
        assert not has_color(pixels, orange)
    assert not np.array_equal(between[0], between[1])  # predicted, but without truth
    np.testing.assert_array_equal(given[0], given[1])


def test_it_can_be_sent_to_another_process(tree, tmp_path):
    benchmark = load(tree)
    copy = pickle.loads(pickle.dumps(benchmark))
    results = write_results(copy, tmp_path / "results")
    assert copy.score(results).totals == benchmark.score(results).totals
