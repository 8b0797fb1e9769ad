from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propagate.benchmarks.benchmark import Benchmark
from propagate.benchmarks.davis.clips import load_davis
from propagate.benchmarks.davis.score import DIFFERENCE_COLORS
from propagate.errors import InputError, UsageError
from propagate.formats import read_indexed_png, write_mask
from propagate.types import Frame, Mask, Prediction

SIZE = (40, 60)
LENGTH = 6


def truth_ids(frame: int, objects: int = 2) -> np.ndarray:
    """Squares that move to the right, one pixel per frame."""
    ids = np.zeros(SIZE, np.uint8)
    for number in range(1, objects + 1):
        top = 12 * (number - 1) + 2
        ids[top : top + 10, 3 + frame : 13 + frame] = number
    return ids


def add_clip(root: Path, name: str, masks: list[np.ndarray], *, palette: bool = True) -> None:
    frames, annotations = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
    for folder in (frames, annotations):
        folder.mkdir(parents=True)
    for index, ids in enumerate(masks):
        Image.new("RGB", ids.shape[::-1], (10 * index, 90, 200)).save(frames / f"{index:05d}.jpg")
        if palette:
            write_mask(annotations / f"{index:05d}.png", Mask(ids))
        else:
            Image.fromarray(ids).save(annotations / f"{index:05d}.png")


def add_list(root: Path, file: str, lines: list[str]) -> None:
    path = root / "ImageSets" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def tree(tmp_path):
    """2017: `ant` has two objects, void in frame 2 and a third object later on; `bee` has one object."""
    root = tmp_path / "DAVIS"
    masks = [truth_ids(frame) for frame in range(LENGTH)]
    masks[2][0, :] = 255
    masks[3][30:35, 30:35] = 3
    add_clip(root, "ant", masks)
    add_clip(root, "bee", [truth_ids(frame, objects=1) for frame in range(LENGTH)])
    add_list(root, "2017/val.txt", ["bee", "ant"])
    add_list(root, "2017/train.txt", ["ant", "bee"])
    return root


@pytest.fixture
def davis(tree):
    return load_davis(tree, year=2017, split="train")


def write_results(davis: Benchmark, results: Path, *, predicted=None) -> Path:
    """Results of a method that finds `predicted(clip name, frame)`; by default the truth."""
    for clip in davis.clips:
        folder = results / clip.name
        folder.mkdir(parents=True)
        objects = {"ant": 2}.get(clip.name, 1)
        with davis.writer(clip, folder) as write:
            for frame in davis.frames(clip):
                ids = predicted(clip.name, frame.index) if predicted else truth_ids(frame.index, objects)
                write(frame, Prediction(frame.index, frame.time_s, mask=Mask(ids)))
    return results


def test_a_split_becomes_clips_in_the_order_of_its_list(davis):
    assert [clip.name for clip in davis.clips] == ["ant", "bee"]
    assert [picture.name for picture in davis.clips[0].pictures] == [f"{i:05d}.jpg" for i in range(LENGTH)]
    assert davis.title == "DAVIS-2017 train, semi-supervised"
    assert davis.name == "davis-2017"
    assert davis.remarks == ()
    assert davis.published == ()


def test_frames_come_in_order_at_their_own_size(davis):
    frames = list(davis.frames(davis.clips[0]))
    assert [frame.index for frame in frames] == list(range(LENGTH))
    assert {frame.size for frame in frames} == {SIZE}
    assert frames[4].pixels[0, 0, 0] == pytest.approx(40, abs=3)


def test_it_can_be_pickled(davis):
    assert pickle.loads(pickle.dumps(davis)) == davis


def test_perfect_results_score_one(davis, tmp_path):
    scores = davis.score(write_results(davis, tmp_path / "results", predicted=None))
    # the void row counts as background, and so do the objects that come later: the truth without them is perfect
    assert scores.totals == {
        "J&F": 1,
        "J-Mean": 1,
        "J-Recall": 1,
        "J-Decay": 0,
        "F-Mean": 1,
        "F-Recall": 1,
        "F-Decay": 0,
    }
    assert scores.problems == {}
    assert [(curve.clip, curve.target, curve.frames) for curve in scores.curves] == [
        ("ant", "1", (1, 2, 3, 4)),
        ("ant", "2", (1, 2, 3, 4)),
        ("bee", "1", (1, 2, 3, 4)),
    ]


def test_void_of_the_truth_is_background_and_counts(davis, tmp_path):
    def predicted(clip, frame):
        ids = truth_ids(frame, 2 if clip == "ant" else 1)
        if (clip, frame) == ("ant", 2):
            ids[0, :] = 1
        return ids

    curve = davis.score(write_results(davis, tmp_path, predicted=predicted)).curves[0]
    assert curve.values["J"].tolist() == pytest.approx([1, 100 / 160, 1, 1])


def test_scores_by_hand_and_every_object_counts_once(davis, tmp_path):
    results = write_results(
        davis, tmp_path / "results", predicted=lambda clip, _: truth_ids(0, 2 if clip == "ant" else 1)
    )
    scores = davis.score(results)
    # a square of ten, moved by n pixels
    expected = [(10 - n) / (10 + n) for n in range(1, LENGTH - 1)]
    for curve in scores.curves:
        assert curve.values["J"].tolist() == pytest.approx(expected)
    assert scores.totals["J-Mean"] == pytest.approx(np.mean(expected))
    assert scores.totals["J-Recall"] == 0.75  # 9/11, 8/12, 7/13 and 6/14
    assert scores.totals["J&F"] == pytest.approx((scores.totals["J-Mean"] + scores.totals["F-Mean"]) / 2)
    assert scores.clips["bee"]["J-Mean"] == pytest.approx(np.mean(expected))


def test_tables_have_the_official_names_and_columns(davis, tmp_path):
    overall, per_sequence, curves = davis.score(write_results(davis, tmp_path)).tables
    assert (overall.file, per_sequence.file, curves.file) == (
        "global_results-train.csv",
        "per-sequence_results-train.csv",
        "curves.csv",
    )
    assert overall.rows == (("1.000", "1.000", "1.000", "0.000", "1.000", "1.000", "0.000"),)
    assert [row[0] for row in per_sequence.rows] == ["ant_1", "ant_2", "bee_1"]
    assert curves.columns == ("sequence", "object", "frame", "J", "F")
    assert curves.rows[0] == ("ant", "1", "1", "1.0", "1.0")
    assert len(curves.rows) == 12


def test_results_are_named_as_the_annotations_and_frame_0_is_the_given_mask(davis, tmp_path):
    results = write_results(davis, tmp_path, predicted=lambda *_: np.zeros(SIZE, np.uint8))
    assert sorted(f.name for f in (results / "bee").iterdir()) == [f"{i:05d}.png" for i in range(LENGTH)]
    assert (read_indexed_png(results / "ant" / "00000.png").ids == truth_ids(0)).all()
    with Image.open(results / "ant" / "00000.png") as image:
        assert image.mode == "P"
    assert not read_indexed_png(results / "ant" / "00001.png").ids.any()


def test_the_first_and_the_last_result_may_be_missing(davis, tmp_path):
    results = write_results(davis, tmp_path)
    for name in ("00000.png", f"{LENGTH - 1:05d}.png"):
        (results / "ant" / name).unlink()
    scores = davis.score(results)
    assert scores.problems == {}
    assert scores.totals["J&F"] == 1


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda path: path.unlink(), "scored frames are missing (1 of 4: 00002.png)"),
        (
            lambda path: path.write_bytes(b"no picture"),
            "a result is not a picture that can be read (1 of 4: 00002.png)",
        ),
        (
            lambda path: Image.new("RGB", SIZE[::-1]).save(path),
            "a result is not an indexed PNG: its pixels are RGB, not numbers from 0 to 255 (1 of 4: 00002.png)",
        ),
        (
            lambda path: write_mask(path, Mask(np.zeros((20, 30), np.uint8))),
            "results are 30x20 instead of 60x40 (1 of 4: 00002.png)",
        ),
        (
            lambda path: write_mask(path, Mask(np.full(SIZE, 3, np.uint8))),
            "results have ids beyond those of the first mask, 1 to 2 (1 of 4: 00002.png)",
        ),
        (
            lambda path: write_mask(path, Mask(np.full(SIZE, 255, np.uint8))),
            "results have pixels of value 255, which is no object (1 of 4: 00002.png)",
        ),
    ],
)
def test_where_the_official_code_would_stop_the_clip_is_told_and_the_rest_is_scored(
    davis, tmp_path, break_it, sentence
):
    results = write_results(davis, tmp_path)
    break_it(results / "ant" / "00002.png")
    scores = davis.score(results)
    assert scores.problems == {"ant": (f"Not scored: {sentence}.",)}
    assert scores.remarks == ("Only 1 of 2 clips could be scored; the totals are theirs alone.",)
    assert list(scores.clips) == ["bee"]
    assert scores.totals["J&F"] == 1


def test_all_that_is_wrong_with_a_clip_is_named_at_once(davis, tmp_path):
    results = write_results(davis, tmp_path)
    (results / "ant" / "00001.png").unlink()
    (results / "ant" / "00004.png").unlink()
    write_mask(results / "ant" / "00003.png", Mask(np.full(SIZE, 9, np.uint8)))
    write_mask(results / "ant" / "00077.png", Mask(np.zeros(SIZE, np.uint8)))
    assert davis.score(results).problems["ant"] == (
        "Not scored: scored frames are missing (2 of 4: 00001.png, 00004.png).",
        "Not scored: results have ids beyond those of the first mask, 1 to 2 (1 of 4: 00003.png).",
        "Ignored, not frames of this clip: 00077.png.",
    )


def test_a_truth_that_breaks_later_costs_its_clip_alone(davis, tree, tmp_path):
    results = write_results(davis, tmp_path / "results")
    (tree / "Annotations" / "480p" / "ant" / "00002.png").write_bytes(b"")
    scores = davis.score(results)
    assert "the truth cannot be used" in scores.problems["ant"][0]
    assert list(scores.clips) == ["bee"]


def test_a_clip_without_a_folder_is_not_scored(davis, tmp_path):
    results = write_results(davis, tmp_path)
    shutil.rmtree(results / "bee")
    assert davis.score(results).problems == {"bee": (f"Not scored: the folder {results / 'bee'} does not exist.",)}


def test_nothing_to_score_is_an_error(davis, tmp_path):
    with pytest.raises(InputError, match=r"Nothing in .* could be scored. ant: Not scored: the folder"):
        davis.score(tmp_path / "nowhere")


def test_fewer_objects_are_filled_up_with_empty_ones(davis, tmp_path):
    scores = davis.score(write_results(davis, tmp_path, predicted=lambda _, frame: truth_ids(frame, 1)))
    assert scores.curves[1].values["J"].tolist() == [0, 0, 0, 0]
    assert scores.problems == {}
    assert scores.remarks == ("ant: object 2 is in none of the scored results and counts as empty.",)


def test_a_choice_by_name_is_told(tree):
    davis = load_davis(tree, year=2017, sequences=["ant"])
    assert [clip.name for clip in davis.clips] == ["ant"]
    assert davis.title == "DAVIS-2017 val by another list, 1 of 2 clips, semi-supervised"
    assert davis.remarks == (
        "Not the official val split: its list has 2 clips instead of 30.",
        "A subset: 1 of 2 clips; not comparable with scores of all.",
    )


def test_a_choice_from_a_list_of_the_official_length_is_only_a_subset(tree):
    add_list(tree, "2017/val.txt", ["ant", *(f"gone{number}" for number in range(29))])
    davis = load_davis(tree, year=2017, sequences=["ant"])
    assert davis.title == "DAVIS-2017 val, 1 of 30 clips, semi-supervised"
    assert davis.remarks == ("A subset: 1 of 30 clips; not comparable with scores of all.",)


def test_every_clip_of_another_list_by_name_is_not_the_official_split(tree):
    davis = load_davis(tree, year=2017, sequences=["ant", "bee"])
    assert davis.title == "DAVIS-2017 val by another list, 2 clips, semi-supervised"
    (remark,) = davis.remarks
    assert remark.startswith("Not the official val split: it has 2 clips, 12 frames, 3 objects instead of 30 clips")


def test_a_choice_by_name_needs_no_list_and_keeps_its_order(tree):
    shutil.rmtree(tree / "ImageSets")
    davis = load_davis(tree, year=2017, sequences=["bee", "ant", "bee"])
    assert [clip.name for clip in davis.clips] == ["bee", "ant"]
    assert davis.title == "DAVIS-2017, 2 clips by name, semi-supervised"
    assert davis.remarks == ("A subset by name; the tree has no list of the val split.",)


def test_a_choice_from_outside_the_split_is_told(tree):
    add_list(tree, "2017/val.txt", ["bee"])
    davis = load_davis(tree, year=2017, sequences=["bee", "ant"])
    assert davis.title == "DAVIS-2017, 2 clips by name, semi-supervised"
    assert davis.remarks == (
        "Not the official val split: its list has 1 clip instead of 30.",
        "A selection by name; not in the val split: ant.",
    )


def test_all_that_lies_in_the_tree_needs_no_list(tree):
    shutil.rmtree(tree / "ImageSets")
    davis = load_davis(tree, year=2017, split="all")
    assert [clip.name for clip in davis.clips] == ["ant", "bee"]
    assert davis.title == "DAVIS-2017, 2 clips: all of the tree, semi-supervised"
    assert davis.remarks == ("All sequences of the tree; not comparable with scores of an official split.",)


def test_an_unknown_sequence_suggests_the_nearest(tree):
    with pytest.raises(UsageError, match=r"--sequence bees: .* has no such sequence. Did you mean bee\?"):
        load_davis(tree, year=2017, sequences=["bees"])
    with pytest.raises(UsageError, match="There are: ant, bee"):
        load_davis(tree, year=2017, sequences=["zzzzzz"])


def test_2017_val_must_be_whole(tree):
    with pytest.raises(InputError, match="2 clips, 12 frames, 3 objects instead of 30 clips, 1999 frames, 61 objects"):
        load_davis(tree, year=2017)


def test_the_whole_of_2017_val_stands_beside_what_was_published(tmp_path):
    root = tmp_path / "DAVIS"
    names = [f"clip{number:02d}" for number in range(30)]
    lengths = [67] * 29 + [1999 - 29 * 67]
    for name, length in zip(names, lengths, strict=True):  # one has three objects: 61 in all
        add_clip(root, name, [truth_ids(0, objects=3 if name == "clip00" else 2)])
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            first = next((root / kind / "480p" / name).iterdir())
            for index in range(1, length):
                first.with_name(f"{index:05d}.{suffix}").symlink_to(first)
    add_list(root, "2017/val.txt", names)
    davis = load_davis(root, year=2017)
    assert davis.counts == (30, 1999, 61)
    assert davis.remarks == ()
    rows = {row.method: row for row in davis.published}
    assert rows["DIFT_adm"].totals == {"J&F": 0.757, "J-Mean": 0.727, "F-Mean": 0.786}
    assert rows["DIFT_sd"].command == "propagate evaluate davis --data DAVIS --year 2017 --config dift_sd_davis"
    assert load_davis(root, year=2017, sequences=names[:2]).published == ()


@pytest.fixture
def tree_2016(tmp_path):
    root = tmp_path / "DAVIS"
    for name in ("ant", "bee"):
        masks = [np.where(truth_ids(frame) > 0, np.uint8(255), np.uint8(0)) for frame in range(LENGTH)]
        add_clip(root, name, masks, palette=False)
    return root


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("480p/val.txt", ["/JPEGImages/480p/bee/00000.jpg /Annotations/480p/bee/00000.png"] * 2),
        ("2016/val.txt", ["bee", ""]),
    ],
)
def test_lists_of_2016(tree_2016, file, lines):
    add_list(tree_2016, file, lines)
    davis = load_davis(tree_2016, year=2016)
    assert [clip.name for clip in davis.clips] == ["bee"]
    assert davis.title == "DAVIS-2016 val by another list, 1 clip, semi-supervised"
    assert davis.remarks == (
        "Not the official val split: it has 1 clip, 6 frames, 1 object instead of 20 clips, 1376 frames, 20 objects.",
    )


def test_2016_is_one_object_in_truth_and_results(tree_2016, tmp_path):
    davis = load_davis(tree_2016, year=2016, split="all")
    assert davis.label(davis.clips[0]).objects == (1,)
    results = write_results(
        davis, tmp_path / "results", predicted=lambda _, frame: (truth_ids(frame) > 0).astype(np.uint8)
    )
    # results of others: white on black
    shutil.rmtree(results / "bee")
    shutil.copytree(tree_2016 / "Annotations" / "480p" / "bee", results / "bee")
    scores = davis.score(results)
    assert scores.totals["J&F"] == 1
    assert [(curve.clip, curve.target) for curve in scores.curves] == [("ant", "1"), ("bee", "1")]


@pytest.mark.parametrize(
    ("values", "told"), [((0, 255), False), ((0, 1), False), ((0, 128), True), ((0, 90, 255), True), ((0, 0), False)]
)
def test_gray_results_of_2016_are_told(tree_2016, tmp_path, values, told):
    davis = load_davis(tree_2016, year=2016, sequences=["ant"])
    results = write_results(davis, tmp_path / "results", predicted=lambda _, frame: truth_ids(frame, 1))
    ids = np.zeros(SIZE, np.uint8)
    ids[: len(values), :] = np.array(values, np.uint8)[:, None]
    Image.fromarray(ids).save(results / "ant" / "00002.png")
    sentence = "ant: results have gray values; everything above 0 counts as the object."
    assert davis.score(results).remarks == ((sentence,) if told else ())


def test_ids_of_2017_are_no_gray_values(davis, tmp_path):
    assert davis.score(write_results(davis, tmp_path)).remarks == ()


def test_results_one_level_too_deep_are_found(davis, tmp_path):
    write_results(davis, tmp_path / "results" / "480p")
    with pytest.raises(InputError, match=r"ant: Not scored: .*exist\. Did you mean --results .*/results/480p\?"):
        davis.score(tmp_path / "results")


def test_results_as_jpg_are_told(davis, tmp_path):
    results = write_results(davis, tmp_path)
    for path in (results / "bee").iterdir():
        path.rename(path.with_suffix(".jpg"))
    (sentence,) = davis.score(results).problems["bee"]
    assert sentence.startswith(
        "Not scored: scored frames are missing; the folder has .jpg files, and PNG is needed (4 of 4: 00001.png"
    )


def test_every_missing_piece_is_named(tree):
    shutil.rmtree(tree / "JPEGImages" / "480p" / "ant")
    (tree / "Annotations" / "480p" / "bee" / "00003.png").unlink()
    add_list(tree, "2017/train.txt", ["ant", "bee", "cow"])
    with pytest.raises(InputError) as caught:
        load_davis(tree, year=2017, split="train")
    assert caught.value.message == (
        f"{tree} is not a complete DAVIS-2017 tree: JPEGImages/480p/ant (frames) is missing; bee has frames without "
        "a mask: 00003.jpg; JPEGImages/480p/cow (frames) is missing; Annotations/480p/cow (masks) is missing."
    )
    assert "--sequence" in caught.value.remedy


def test_shifted_pairs_are_refused_and_named(tree):
    folder = tree / "JPEGImages" / "480p" / "ant"
    for index in reversed(range(LENGTH)):  # still as many frames as masks
        (folder / f"{index:05d}.jpg").rename(folder / f"{index + 1:05d}.jpg")
    with pytest.raises(
        InputError, match=r"tree: ant has frames without a mask: 00006\.jpg and masks without a frame: 00000\.png\."
    ):
        load_davis(tree, year=2017, split="train")


def test_a_frame_that_is_there_twice_is_refused(tree):
    folder = tree / "JPEGImages" / "480p" / "ant"
    shutil.copy(folder / "00002.jpg", folder / "00002.JPG")
    with pytest.raises(InputError, match=r"ant has 7 frames \(\.jpg\) and 6 masks \(\.png\): some have the same name"):
        load_davis(tree, year=2017, split="train")


def test_every_later_mask_that_does_not_fit_is_named(tree):
    folder = tree / "Annotations" / "480p" / "ant"
    write_mask(folder / "00003.png", Mask(np.zeros((20, 30), np.uint8)))
    write_mask(folder / "00005.png", Mask(np.zeros(SIZE[::-1], np.uint8)))
    (folder / "00002.png").write_bytes(b"no picture")
    Image.new("L", SIZE[::-1]).save(folder / "00004.png", format="JPEG")
    with pytest.raises(InputError) as caught:
        load_davis(tree, year=2017, split="train")
    assert caught.value.message == (
        f"{tree} is not a complete DAVIS-2017 tree: "
        "Annotations/480p/ant has masks that cannot be read as PNG: 00002.png, 00004.png; "
        "Annotations/480p/ant has masks that are not 60x40 like the first frame: 00003.png (30x20), 00005.png (40x60)."
    )


def test_broken_masks_are_named_beside_a_broken_first_one(tree):
    folder = tree / "Annotations" / "480p" / "ant"
    for name in ("00000.png", "00004.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"ant/00000\.png .*; .*ant has masks that cannot be read as PNG: 00004\.png\."
    ):
        load_davis(tree, year=2017, split="train")


def test_many_missing_pieces_are_counted(tree):
    add_list(tree, "2017/train.txt", [f"gone{number}" for number in range(10)])
    with pytest.raises(InputError, match=r"gone3 \(masks\) is missing; and 12 more\."):
        load_davis(tree, year=2017, split="train")


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (np.zeros(SIZE, np.uint8), r"ant/00000\.png has no object\."),
        (
            np.where(truth_ids(0) > 0, np.uint8(255), np.uint8(0)),
            r"has no object, only black and white \(--year 2016\?\)",
        ),
        (np.ones((20, 30), np.uint8), r"ant/00000\.png is 30x20, but its frame 60x40"),
    ],
)
def test_a_first_mask_that_does_not_fit_is_named(tree, ids, sentence):
    write_mask(tree / "Annotations" / "480p" / "ant" / "00000.png", Mask(ids))
    with pytest.raises(InputError, match=sentence):
        load_davis(tree, year=2017, split="train")


@pytest.mark.parametrize("broken", ["JPEGImages/480p/ant/00000.jpg", "Annotations/480p/ant/00000.png"])
def test_unreadable_first_files_are_named(tree, broken):
    (tree / broken).write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"is not a complete DAVIS-2017 tree: .*{broken}"):
        load_davis(tree, year=2017, split="train")


def test_2017_masks_are_not_taken_for_those_of_2016(tree):
    with pytest.raises(InputError, match=r"ant/00000.png is not black and white \(--year 2017\?\)"):
        load_davis(tree, year=2016, sequences=["ant"])


def test_a_clip_too_short_to_score_is_named(tree):
    add_clip(tree, "cow", [truth_ids(0), truth_ids(1)])
    with pytest.raises(InputError, match=r"cow has 2 frames .* fewer than the 3 it takes to score one"):
        load_davis(tree, year=2017, sequences=["cow"])


def test_a_missing_list_names_where_it_was_looked_for(tree):
    with pytest.raises(
        InputError, match=r"no list of the test-dev split: .*2017/test-dev\.txt does not exist"
    ) as caught:
        load_davis(tree, year=2017, split="test-dev")
    assert "--split all" in caught.value.remedy
    with pytest.raises(InputError, match=r"neither .*480p/val\.txt nor .*2016/val\.txt exists"):
        load_davis(tree, year=2016)


@pytest.mark.parametrize("line", ["..", "../..", "JPEGImages/../00000.jpg", "a" * 5000, "a\0b"])
def test_a_list_does_not_lead_out_of_the_tree(tree, line):
    (tree / "ImageSets" / "2017" / "train.txt").write_text(line + "\n")
    with pytest.raises(InputError, match="cannot be the name of a sequence"):
        load_davis(tree, year=2017, split="train")


@pytest.mark.parametrize("name", ["../train", "", "..", "/etc/passwd"])
def test_splits_and_resolutions_are_names(tree, name):
    with pytest.raises(UsageError, match="--split"):
        load_davis(tree, year=2017, split=name)
    with pytest.raises(UsageError, match="--resolution"):
        load_davis(tree, year=2017, split="train", resolution=name)


def test_pipes_and_loops_are_no_pieces_of_a_tree(tree):
    frame = tree / "JPEGImages" / "480p" / "ant" / "00001.jpg"
    frame.unlink()
    for make in (os.mkfifo, lambda path: path.symlink_to(path)):
        make(frame)
        with pytest.raises(InputError, match=r"masks without a frame: 00001\.png"):
            load_davis(tree, year=2017, split="train")
        frame.unlink()


def test_names_that_are_not_utf_8_are_told(tree):
    folder = tree / "Annotations" / "480p"
    (folder / "ant").rename(folder / os.fsdecode(b"a\xff"))
    with pytest.raises(InputError, match=r"a\\.?udcff.* cannot be the name of a sequence"):
        load_davis(tree, year=2017, split="all")


def test_an_empty_or_unreadable_list_is_told(tree):
    path = tree / "ImageSets" / "2017" / "train.txt"
    path.write_text("\n\n")
    with pytest.raises(InputError, match=r"train\.txt is empty"):
        load_davis(tree, year=2017, split="train")
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"train\.txt is not UTF-8"):
        load_davis(tree, year=2017, split="train")


def test_a_folder_that_is_no_tree_says_what_to_give_instead(tree, tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        load_davis(tmp_path / "nowhere", year=2017)
    with pytest.raises(InputError, match=r"JPEGImages/480p is missing.*Did you mean --data .*DAVIS\?"):
        load_davis(tree.parent, year=2017)
    for deeper in ("JPEGImages", "JPEGImages/480p", "JPEGImages/480p/ant"):
        with pytest.raises(InputError, match=r"Did you mean --data .*/DAVIS\?$"):
            load_davis(tree / deeper, year=2017)
    with pytest.raises(InputError, match=r"Full-Resolution is missing.*Give an existing resolution: 480p"):
        load_davis(tree, year=2017, resolution="Full-Resolution")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Give the folder that holds JPEGImages and Annotations"):
        load_davis(tmp_path / "empty", year=2017)
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "empty" / kind / "480p").mkdir(parents=True)
    with pytest.raises(InputError, match="has no sequences"):
        load_davis(tmp_path / "empty", year=2017, split="all")


def test_the_difference_shows_hits_misses_and_what_is_wrong(davis, tmp_path):
    def predicted(clip, frame):
        ids = truth_ids(frame, 2 if clip == "ant" else 1)
        ids[2:12, 3 + frame : 8 + frame] = 0  # missed: the left half of object 1
        ids[14:24, 3 + frame : 8 + frame] = 1 if clip == "ant" else 0  # the left half of object 2 is taken for object 1
        ids[36:, 50:] = 1
        return ids

    results = write_results(davis, tmp_path, predicted=predicted)
    clip = davis.clips[0]
    pictures = davis.compare(clip, results, 3)
    assert [picture.shape for picture in pictures] == [(*SIZE, 3)] * 3
    difference = pictures[2].astype(int)

    def named(row: int, column: int) -> str:
        """The color that is nearest in kind; the frame is dark, so it only shades it."""
        shade = {
            name: np.abs(difference[row, column] - 0.8 * np.array(rgb)).max() for name, rgb in DIFFERENCE_COLORS.items()
        }
        return min(shade, key=lambda name: shade[name])

    assert named(5, 14) == "hit"
    assert named(5, 7) == "missed"
    assert named(18, 7) == "wrong object"
    assert named(38, 55) == "false alarm"
    frame = next(frame for frame in davis.frames(clip) if frame.index == 3)
    assert (difference[28, 40] == frame.pixels[28, 40] // 3).all()
    # object 3 came after the first frame, is not scored and so not shown as missed
    assert (difference[32, 32] == frame.pixels[32, 32] // 3).all()


def test_a_picture_of_results_that_do_not_fit_is_refused(davis, tmp_path):
    results = write_results(davis, tmp_path)
    write_mask(results / "ant" / "00002.png", Mask(np.zeros((20, 30), np.uint8)))
    with pytest.raises(InputError, match=r"00002.png is 30x20, but its frame is 60x40"):
        davis.compare(davis.clips[0], results, 2)
    (results / "ant" / "00002.png").unlink()
    with pytest.raises(InputError, match="does not exist"):
        davis.compare(davis.clips[0], results, 2)


def test_results_that_cannot_be_written_are_an_error(davis, tmp_path):
    clip = davis.clips[0]
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), 1, 0.0)
    with (
        pytest.raises(InputError, match="cannot be written"),
        davis.writer(clip, tmp_path / "missing") as write,
    ):
        write(frame, Prediction(1, 0.0, mask=Mask(truth_ids(1))))
