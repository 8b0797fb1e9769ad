"""What lies in a folder of pictures, in which order, and what is said of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propagate.errors import InputError
from propagate.video import open_video
from tests.video.clips import SIZE, paint, read_number


def _frames(folder: Path, names: Sequence[str]) -> Path:
    """Pictures that carry their place in the list."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(paint(number)).save(folder / name, quality=95)
    return folder


def _mask(path: Path, mode: str = "L") -> Path:
    Image.new(mode, SIZE[::-1]).save(path)
    return path


def _notes(folder: Path) -> str:
    return " ".join(open_video(folder).info.notes)


def _numbers(folder: Path, **options: object) -> list[int]:
    return [read_number(frame.pixels) for frame in open_video(folder, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["00000_mask.png", "first.png", "00000.png", "00002.jpg"])
def test_the_mask_given_is_no_frame(tmp_path: Path, name: str) -> None:
    folder = _frames(tmp_path / "f", [f"{n:05d}.jpg" for n in (0, 1, 3)])
    mask = _mask(folder / name)
    link = tmp_path / "link.png"
    link.symlink_to(mask)
    for given in (mask, str(mask), link):
        video = open_video(folder, leave_out=[given, tmp_path / "missing.json"])
        assert [read_number(frame.pixels) for frame in video] == [0, 1, 2]
        assert f"Not read as frames, because the command names them: {name}." in video.info.notes


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_masks_by_name_and_kind_are_no_frames(tmp_path: Path, mode: str) -> None:
    folder = _frames(tmp_path / "f", ["0.jpg", "1.jpg", "2.jpg"])
    for number in range(3):
        _mask(folder / f"{number}_Mask.png", mode)
    assert _numbers(folder) == [0, 1, 2]
    assert "masks by name and format: 0_Mask.png, 1_Mask.png, 2_Mask.png." in _notes(folder)


def test_pictures_called_masks_are_frames_where_all_are(tmp_path: Path) -> None:
    assert _numbers(_frames(tmp_path / "f", ["mask_0.png", "mask_1.png"])) == [0, 1]
    # of one kind with the others: only the name is strange, and it is said
    folder = _frames(tmp_path / "g", ["0.png", "1.png", "2.png", "3.png", "mask.png"])
    assert _numbers(folder) == [0, 1, 2, 3, 4]
    assert "Named differently from the others, but read as frames: mask (frame 4)." in _notes(folder)


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    folder = _frames(tmp_path / "f", ["0.png", "2.png"])
    (folder / "1.png").symlink_to("../annex/missing")
    with pytest.raises(InputError, match=r"1\.png is a link to \.\./annex/missing, which does not exist") as caught:
        open_video(folder)
    assert caught.value.remedy
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to(folder / "0.png")
    assert _numbers(folder) == [0, 0, 1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    folder = _frames(tmp_path / "f", ["0.png", "1.png"])
    for name in ("2.png", "clip.mp4"):
        os.mkfifo(folder / name)
        with pytest.raises(InputError, match="pipe or a device") as caught:
            open_video(folder / name)
        assert "Save it as a file first" in caught.value.remedy
    with pytest.raises(InputError, match=r"2\.png is a pipe"):
        open_video(folder)
    with pytest.raises(InputError, match="pipe or a device"):
        open_video(os.devnull)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0", "1", "2", "4", "5"], "have gaps, 1 missing: 3."),
        (["a_00", "a_01", "a_05", "a_06", "a_09"], "have gaps, 5 missing: 2 to 4, 7 to 8."),
        (["x1_7_l", "x1_8_l"], "Names start at 7 and frames are counted from 0: frame 0 is x1_7_l."),
        (["00001", "00002"], "Names start at 1 and frames are counted from 0: frame 0 is 00001."),
        (["0", "5", "10"], "Names count in steps of 5; frames are counted one by one."),
        (["s1_f1", "s1_f4", "s2_f1"], "have gaps, 2 missing: 2 to 3."),
        (["2024-02-27", "2024-02-29", "2024-03-01"], "have gaps, 1 missing: 28."),
        (["0a", "0b", "1f", "10"], "Names are spelled differently, so their order is a guess: 0a, 0b, 1f, 10."),
        (["f0", "f1", "f-1", "f-2"], "Names are spelled differently, so their order is a guess: f0, f1, f-1, f-2."),
        (["01.02.2024", "28.01.2024"], "ordered by their numbers from left to right: 01.02.2024, 28.01.2024."),
        (["cam_1-2-2024_a", "cam_2-1-2024_a"], "Names look like dates or powers of ten"),
        (["9e1", "10e0", "100"], "ordered by their numbers from left to right: 9e1, 10e0, 100."),
        (["one", "three", "two"], "Names have no numbers, and are in alphabetical order: one, three, two."),
        (["cam1_0", "cam1_1", "cam2_0"], "starts again at cam2_0: all are taken for one video."),
        (["00", "01", "gt"], "Names are spelled differently, so their order is a guess: 00, 01, gt."),
    ],
)
def test_numbers_that_do_not_count_from_0_are_said(tmp_path: Path, names: list[str], said: str) -> None:
    folder = _frames(tmp_path / "f", [f"{name}.png" for name in names])
    assert _numbers(folder) == list(range(len(names)))
    assert said in _notes(folder)


@pytest.mark.parametrize("names", [["00000", "00001", "00002"], ["f9", "f10"], ["single"]])
def test_plain_names_are_not_remarked_on(tmp_path: Path, names: list[str]) -> None:
    folder = _frames(tmp_path / "f", [f"{name}.png" for name in names])
    notes = [note for note in open_video(folder).info.notes if "names" in note.lower() or "named" in note]
    assert [note for note in notes if names[0] != "f9"] == []


@pytest.mark.parametrize(
    "names",
    [
        ["1.0", "1.04", "1.08", "1.12", "1.2"],
        ["t0.5s", "t0.75s", "t1.25s", "t10.0s"],
        ["-0.04", "0.00", "0.04", "0.1"],
        ["0,0", "0,04", "0,12", "0,5"],
        ["1", "1.04", "1.5", "2"],
        ["12-30-01.25", "12-30-01.5"],
        ["1617181920.012", "1617181920.1"],
        ["a\u00b9", "a\u00b2", "a\u00b3"],
        # counters behind a point, dates, versions
        [f"clip.{n}" for n in range(1, 13)],
        [f"1.{n}" for n in range(1, 13)],
        [f"1.{n}" for n in range(8, 12)],
        ["2024.1.5", "2024.1.10", "2024.2.1"],
    ],
)
def test_decimal_numbers_are_ordered_by_value(tmp_path: Path, names: list[str]) -> None:
    folder = _frames(tmp_path / "f", [f"{name}.png" for name in names])
    assert [frame.name for frame in open_video(folder)] == names


def test_folders_among_the_pictures_are_said(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    _frames(tmp_path / "f" / "inner", ["0.png"])
    with pytest.raises(InputError, match="contains no pictures, only inner"):
        open_video(tmp_path / "f")
    _frames(tmp_path / "f", ["0.png", "1.png"])
    assert "Not read, because they are not pictures: inner." in _notes(tmp_path / "f")


def test_an_order_by_value_is_said(tmp_path: Path) -> None:
    folder = _frames(tmp_path / "f", [f"{name}.png" for name in ("1.0", "1.04", "1.2")])
    assert "Names are decimal numbers and ordered by value: 1.0 to 1.2." in _notes(folder)


@pytest.mark.parametrize("bits", [10, 12])
def test_fewer_bits_in_sixteen_are_said(tmp_path: Path, bits: int) -> None:
    deep = np.random.default_rng(0).integers(0, 2**bits, (2, *SIZE), np.uint16)
    deep[:, 0, 0] = 2**bits - 1
    for number in range(2):
        Image.fromarray(deep[number]).save(tmp_path / f"{number}.tif")
    assert f"use {bits} of their bits (no value over {2**bits - 1} in 0.tif and 1.tif)" in _notes(tmp_path)
    Image.fromarray(deep[1] << (16 - bits)).save(tmp_path / "1.tif")
    assert "of their bits" not in _notes(tmp_path)


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "MPO"), (".tif", "TIFF")])
def test_a_preview_beside_the_picture_is_said(tmp_path: Path, suffix: str, kind: str) -> None:
    for number in range(2):
        picture = Image.fromarray(paint(number))
        preview = picture.resize((32, 18))
        picture.save(tmp_path / f"{number}{suffix}", format=kind, save_all=True, append_images=[preview])
    assert _numbers(tmp_path) == [0, 1]
    assert f"0{suffix} and 1 more: It holds 2 pictures: the primary one is read, not the preview." in _notes(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    _frames(tmp_path, [f"{name}_0.png", f"{name}_1.png"])
    video = open_video(tmp_path)
    assert [frame.name for frame in video] == [f"{name}_0", f"{name}_1"]
    (tmp_path / f"{name}_1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"caf\\xe9_1\.png"):
        open_video(tmp_path)
