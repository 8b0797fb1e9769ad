"""Folders of pictures, and single pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from propagate.errors import InputError, UsageError
from propagate.video import open_video
from propagate.video.listing import natural_key
from tests.video.clips import SIZE, paint, paint_grey, read_grey_number, read_number


def _save(path: Path, number: int, size: tuple[int, int] = SIZE) -> Path:
    Image.fromarray(paint(number, size)).save(path)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".PNG"])
def test_natural_order_of_every_kind(tmp_path: Path, suffix: str) -> None:
    # Alphabetical order would be 0, 1, 10, 11, 2, ...
    for number in range(12):
        _save(tmp_path / f"frame_{number}{suffix}", number)
    video = open_video(tmp_path)
    for _ in range(2):
        assert [(f.index, read_number(f.pixels)) for f in video] == [(n, n) for n in range(12)]
    info = video.info
    assert (info.reader, info.count, info.rate, (info.height, info.width)) == ("folder", 12, None, SIZE)
    assert [frame.time_s for frame in video] == pytest.approx([n / 25 for n in range(12)])
    assert any("25 frames per second" in note for note in info.notes)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2), st.sampled_from(["", "f", "clip2_"]))
def test_numbers_sort_as_numbers(found: list[int], prefix: str) -> None:
    names = [f"{prefix}{number}.jpg" for number in found]
    assert sorted(names, key=natural_key) == [f"{prefix}{number}.jpg" for number in sorted(found)]


@settings(deadline=None, max_examples=25)
@given(st.permutations(["b", "B", "a1", "a01", "1", "²", "٣", "a 1", "1a", ""]))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(sorted(names), key=natural_key)


def test_selection(tmp_path: Path) -> None:
    for number in range(10):
        _save(tmp_path / f"{number}.png", number)
    video = open_video(tmp_path, from_frame=1, to_frame=9, stride=3)
    assert [(f.index, read_number(f.pixels)) for f in video] == [(n, n) for n in (1, 4, 7)]
    assert video.info.count == 3
    with pytest.raises(UsageError, match=r"--from-frame 10 is outside the video: .* has 10 frames"):
        open_video(tmp_path, from_frame=10)


def test_what_is_no_picture_is_left_out_and_said(tmp_path: Path) -> None:
    _save(tmp_path / "0.png", 0)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "._0.png").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    video = open_video(tmp_path)
    assert [read_number(frame.pixels) for frame in video] == [0]
    assert "Not read, because they are not pictures: folder.png, notes.txt." in video.info.notes
    assert not any("Thumbs" in note or "DS_Store" in note for note in video.info.notes)


def test_grey_16_bit_and_transparent_pictures_are_converted_and_said(tmp_path: Path) -> None:
    grey = paint_grey(5)
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "1.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "2.tif")
    Image.fromarray(paint(5)).quantize(16).save(tmp_path / "3.png")
    Image.fromarray(np.dstack([paint(5), np.full(SIZE, 128, np.uint8)])).save(tmp_path / "4.png")
    video = open_video(tmp_path)
    pictures = [frame.pixels for frame in video]
    assert [read_grey_number(picture) for picture in pictures] == [5] * 5
    for picture in pictures[:3]:
        np.testing.assert_array_equal(picture, np.dstack([grey] * 3))
    for picture in pictures[3:]:
        np.testing.assert_array_equal(picture, paint(5))
    assert "3 grayscale pictures are converted to 8-bit RGB." in video.info.notes
    assert "2 16-bit pictures are converted to 8-bit RGB." in video.info.notes
    assert "1 transparent pictures are converted to 8-bit RGB." in video.info.notes


def test_16_bit_rgb_keeps_the_upper_8_bits(tmp_path: Path) -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 2**16, (8, 9, 3), np.uint16)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"a{suffix}"
        assert cv2.imwrite(str(path), deep[:, :, ::-1])
        video = open_video(path)
        np.testing.assert_array_equal(next(iter(video)).pixels, deep >> 8)
        assert "1 16-bit pictures are converted to 8-bit RGB." in video.info.notes


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, turn: int) -> None:
    # EXIF 6 is stored a quarter turn counter-clockwise of how it is shown, 8 clockwise.
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(np.rot90(paint(9), turn))).save(tmp_path / "a.jpg", exif=exif, quality=95)
    video = open_video(tmp_path)
    assert read_number(next(iter(video)).pixels) == 9
    assert (video.info.height, video.info.width) == SIZE


def test_mixed_sizes_name_the_file(tmp_path: Path) -> None:
    for number in range(3):
        _save(tmp_path / f"{number}.png", number)
    odd = _save(tmp_path / "3.png", 3, (60, 100))
    with pytest.raises(InputError, match="100x60, the pictures before it are 128x72") as caught:
        open_video(tmp_path)
    assert str(odd) in caught.value.message
    assert "frame 3" in caught.value.message
    assert caught.value.remedy
    assert len(list(open_video(tmp_path, to_frame=3))) == 3  # it is not asked for


def test_a_size_that_changes_after_opening_is_seen(tmp_path: Path) -> None:
    _save(tmp_path / "0.png", 0)
    later = _save(tmp_path / "1.png", 1)
    video = open_video(tmp_path)
    _save(later, 1, (60, 100))
    with pytest.raises(InputError, match=r"1\.png \(frame 1\) is 100x60"):
        list(video)


def test_an_unreadable_picture_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    for number in range(3):
        _save(tmp_path / f"{number}.png", number)
    bad = tmp_path / "1.png"
    for content, cause in ((b"", r"empty \(0 bytes\)"), (b"hello", "not a picture")):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=cause) as caught:
            open_video(tmp_path)
        assert str(bad) in caught.value.message


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_half_a_picture_is_named(tmp_path: Path, suffix: str) -> None:
    _save(tmp_path / f"0{suffix}", 0)
    half = _save(tmp_path / f"1{suffix}", 1)
    half.write_bytes(half.read_bytes()[: half.stat().st_size * 2 // 3])
    with pytest.raises(InputError) as caught:
        list(open_video(tmp_path))
    assert str(half) in caught.value.message
    assert caught.value.remedy


def test_folders_without_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no pictures, nothing"):
        open_video(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"contains no pictures, only clip\.mp4"):
        open_video(tmp_path, reader="folder")


def test_two_pictures_for_one_frame(tmp_path: Path) -> None:
    _save(tmp_path / "0.jpg", 0)
    _save(tmp_path / "0.png", 0)
    with pytest.raises(InputError, match=r"both 0\.(jpg and 0\.png|png and 0\.jpg)"):
        open_video(tmp_path)


def test_several_pictures_in_one_file(tmp_path: Path) -> None:
    pages = [Image.fromarray(paint(number)) for number in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"a\.tif holds several pages"):
        open_video(tmp_path)


def test_32_bits_per_channel(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif has 32 bits"):
        open_video(tmp_path)


def test_a_single_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    video = open_video(_save(tmp_path / "a.PNG", 7))
    assert [(f.index, f.time_s, read_number(f.pixels)) for f in video] == [(0, 0.0, 7)]
    assert video.info.count == 1
    assert "A single picture is read as a video of one frame." in video.info.notes
    with pytest.raises(InputError, match="does not exist"):
        open_video(tmp_path / "missing", reader="folder")


def test_frames_have_the_names_of_their_files(tmp_path: Path) -> None:
    for name in ("img_2.png", "img_10.png", "img_1.JPG"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    video = open_video(tmp_path, stride=2)
    assert video.info.names == ("img_1", "img_10")
    assert [(frame.index, frame.name) for frame in video] == [(0, "img_1"), (2, "img_10")]


def test_negative_values_are_refused(tmp_path: Path) -> None:
    for lowest, fits in ((0, True), (-300, False)):
        values = np.linspace(lowest, 30_000, 40 * 50).astype(np.int16).reshape(40, 50)
        Image.fromarray(values.view(np.uint16)).save(tmp_path / "a.tif", tiffinfo={339: 2})
        if fits:
            np.testing.assert_array_equal(next(iter(open_video(tmp_path))).pixels[..., 0], values >> 8)
        else:
            with pytest.raises(InputError, match="has negative values"):
                list(open_video(tmp_path))
