from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from propagate.errors import InputError
from propagate.files import pictures
from propagate.formats import DAVIS_PALETTE, read_indexed_png, read_mask, read_mask_file, write_mask
from propagate.types import Mask

ANY_IDS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def two_objects() -> Mask:
    ids = np.zeros((30, 40), np.uint8)
    ids[5:15, 4:12] = 3
    ids[10:25, 20:38] = 200
    return Mask(ids)


@settings(deadline=None, max_examples=25)
@given(ids=ANY_IDS)
def test_any_ids_of_any_size_come_back(tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    write_mask(path, Mask(ids))
    np.testing.assert_array_equal(read_indexed_png(path).ids, ids)


@settings(deadline=None, max_examples=25)
@given(ids=ANY_IDS.filter(lambda ids: np.setdiff1d(ids, (0, 255)).size > 0))
def test_a_written_mask_with_objects_is_a_first_mask(tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    write_mask(path, Mask(ids))
    np.testing.assert_array_equal(read_mask(path, frame_size=ids.shape).ids, ids)


def test_the_file_is_an_indexed_png_in_the_colors_of_davis(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", two_objects())
    with Image.open(tmp_path / "m.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (40, 30))
        colors = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colors, DAVIS_PALETTE[two_objects().ids])


def test_a_mask_that_is_not_contiguous_is_written_as_it_looks(tmp_path: Path) -> None:
    ids = two_objects().ids[::-1, ::2]
    write_mask(tmp_path / "m.png", Mask(ids))
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "m.png").ids, ids)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_an_interrupted_write_leaves_the_old_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_mask(tmp_path / "m.png", two_objects())

    def interrupted(self: Image.Image, file: Path, **_: object) -> None:
        file.write_bytes(b"\x89PNG half")
        raise error

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(type(error)):
        write_mask(tmp_path / "m.png", Mask(np.ones((3, 3), np.uint8)))
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "m.png").ids, two_objects().ids)
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


def test_a_full_disk_names_the_mask_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image, file: Path, **_: object) -> None:
        file.write_bytes(b"\x89PNG half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"00007\.png cannot be written: the disk is full"):
        write_mask(tmp_path / "00007.png", two_objects())
    assert [p.name for p in tmp_path.iterdir()] == []


def test_another_size_names_both_and_the_option(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", two_objects())
    with pytest.raises(InputError, match=r"40x30.*80x60.*--resize-mask") as caught:
        read_mask(tmp_path / "m.png", frame_size=(60, 80))
    assert caught.value.exit_code == 3


def test_resizing_keeps_ids_and_places(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", two_objects())
    read = read_mask_file(tmp_path / "m.png", frame_size=(60, 80), resize=True)
    np.testing.assert_array_equal(read.mask.ids, two_objects().ids.repeat(2, 0).repeat(2, 1))
    assert any("40x30" in note and "80x60" in note and "stretches" not in note for note in read.notes)


def test_resizing_to_another_shape_is_said(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", two_objects())
    read = read_mask_file(tmp_path / "m.png", frame_size=(60, 40), resize=True)
    assert read.mask.size == (60, 40)
    assert any("stretches" in note for note in read.notes)


def test_an_object_that_resizing_would_lose_is_an_error(tmp_path: Path) -> None:
    ids = two_objects().ids.copy()
    ids[0, 1] = 77
    write_mask(tmp_path / "m.png", Mask(ids))
    with pytest.raises(InputError, match="object 77 has no pixel left"):
        read_mask(tmp_path / "m.png", frame_size=(6, 8), resize=True)


def test_the_right_size_needs_no_note(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", two_objects())
    assert read_mask_file(tmp_path / "m.png", frame_size=(30, 40), resize=True).notes == ()


def test_an_empty_mask(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", Mask(np.zeros((4, 5), np.uint8)))
    with pytest.raises(InputError, match="no object"):
        read_mask(tmp_path / "m.png")
    assert read_indexed_png(tmp_path / "m.png").objects == ()


@pytest.mark.parametrize("reader", [read_mask, read_indexed_png])
def test_files_that_are_no_pictures(tmp_path: Path, reader: object) -> None:
    assert callable(reader)
    with pytest.raises(InputError, match=r"nix\.png does not exist"):
        reader(tmp_path / "nix.png")
    with pytest.raises(InputError, match="is a folder"):
        reader(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"text\.png is not a picture"):
        reader(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png is not a picture"):
        reader(tmp_path / "empty.png")


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (200, 200), dtype=np.uint8)
    write_mask(tmp_path / "m.png", Mask(noise))
    data = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(tmp_path / "m.png")


def test_colors_are_no_indexed_png(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="not an indexed PNG"):
        read_indexed_png(tmp_path / "m.png")


def test_a_turned_picture_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(two_objects().ids)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera lay on its side
    image.save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png").ids, np.rot90(two_objects().ids, -1))


def test_a_picture_far_larger_than_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mask(tmp_path / "m.png", two_objects())
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match=r"m\.png is far larger than any video frame"):
        read_mask(tmp_path / "m.png")


def test_an_array_is_written_as_a_mask(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [3, 4, 255]])
    write_mask(tmp_path / "a.png", ids)
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "a.png").ids, ids)
    with pytest.raises(InputError, match="mask has type float64"):
        write_mask(tmp_path / "b.png", ids / 2)
    assert not (tmp_path / "b.png").exists()
