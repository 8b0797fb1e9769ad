"""What people have: each kind of picture is read, or refused with its cause."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from propagate.errors import InputError
from propagate.formats import DAVIS_PALETTE, read_mask, read_mask_file

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def disk(size: tuple[int, int] = (60, 80), value: int = 255, soft: bool = False) -> np.ndarray:
    picture = np.zeros(size, np.uint8)
    cv2.circle(picture, (40, 30), 20, value, -1, cv2.LINE_AA if soft else cv2.LINE_8)
    return picture


def saved(tmp_path: Path, picture: np.ndarray | Image.Image, name: str = "mask.png") -> Path:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(tmp_path / name)
    return tmp_path / name


def three_colors(background: tuple[int, int, int] = (0, 0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """A picture, and the ids that order of appearance gives: green is met first, then blue, then red."""
    rgb = np.full((40, 60, 3), background, np.uint8)
    ids = np.zeros((40, 60), np.uint8)
    for number, (color, rows, columns) in enumerate(
        [(GREEN, slice(4, 12), slice(30, 50)), (BLUE, slice(6, 20), slice(2, 20)), (RED, slice(25, 38), slice(5, 55))]
    ):
        rgb[rows, columns] = color
        ids[rows, columns] = number + 1
    return rgb, ids


def test_a_palette_gives_ids_whatever_its_colors(tmp_path: Path) -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[2:8, 2:8], ids[10:18, 5:15] = 7, 42
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(1).permutation(DAVIS_PALETTE[1:]).tobytes())
    np.testing.assert_array_equal(read_mask(saved(tmp_path, image)).ids, ids)


def test_gray_numbers_are_ids(tmp_path: Path) -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[2:8, 2:8], ids[10:18, 5:15] = 1, 254
    np.testing.assert_array_equal(read_mask(saved(tmp_path, ids)).ids, ids)


def test_255_beside_other_ids_is_void_and_said(tmp_path: Path) -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[2:8, 2:8], ids[10:18, 5:15] = 1, 255
    read = read_mask_file(saved(tmp_path, ids))
    np.testing.assert_array_equal(read.mask.ids, ids)
    assert read.mask.objects == (1,)
    assert any("80 pixels" in note and "void" in note for note in read.notes)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16", "F"])
def test_black_and_white_is_object_1_in_every_mode(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(disk())
    if mode == "I;16":
        image = Image.fromarray(disk().astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(disk().astype(np.float32) / 255)
    elif mode == "P":
        image.putpalette(DAVIS_PALETTE.tobytes())
    else:
        image = image.convert(mode)
    assert image.mode == mode
    read = read_mask_file(saved(tmp_path, image, "mask.tif" if mode == "F" else "mask.png"))
    np.testing.assert_array_equal(read.mask.ids, disk(value=1))
    assert any("object 1" in note for note in read.notes)


def test_sixteen_bit_ids(tmp_path: Path) -> None:
    read = read_mask(saved(tmp_path, disk(value=9).astype(np.uint16)))
    np.testing.assert_array_equal(read.ids, disk(value=9))
    with pytest.raises(InputError, match="from 0 to 9000"):
        read_mask(saved(tmp_path, disk(value=9).astype(np.uint16) * 1000))


def test_colors_are_objects_in_order_of_appearance_and_said(tmp_path: Path) -> None:
    rgb, ids = three_colors()
    read = read_mask_file(saved(tmp_path, rgb))
    np.testing.assert_array_equal(read.mask.ids, ids)
    (note,) = read.notes
    assert "(0, 255, 0) is object 1, (0, 0, 255) is object 2, (255, 0, 0) is object 3" in note


def test_without_black_the_color_of_the_border_is_background(tmp_path: Path) -> None:
    rgb, ids = three_colors(background=(250, 250, 250))
    read = read_mask_file(saved(tmp_path, rgb))
    np.testing.assert_array_equal(read.mask.ids, ids)
    assert any("(250, 250, 250)" in note and "background" in note for note in read.notes)


def test_transparent_is_background_and_black_an_object(tmp_path: Path) -> None:
    rgb, ids = three_colors()
    rgb[ids == 2] = (0, 0, 0)
    rgba = np.dstack([rgb, np.where(ids > 0, 255, 0).astype(np.uint8)])
    read = read_mask_file(saved(tmp_path, rgba))
    np.testing.assert_array_equal(read.mask.ids, ids)
    assert any("transparent is background" in note for note in read.notes)


def test_soft_transparency_is_cut_at_one_half(tmp_path: Path) -> None:
    alpha = disk(soft=True)
    rgba = np.dstack([np.full((60, 80, 3), RED, np.uint8), alpha])
    read = read_mask_file(saved(tmp_path, rgba))
    np.testing.assert_array_equal(read.mask.ids, (alpha >= 128).astype(np.uint8))
    assert any("one half" in note for note in read.notes)


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    rgb, ids = three_colors()
    rgba = np.dstack([rgb, np.full(ids.shape, 255, np.uint8)])
    np.testing.assert_array_equal(read_mask(saved(tmp_path, rgba)).ids, ids)


def test_a_palette_with_black_elsewhere_than_0_goes_by_its_colors(tmp_path: Path) -> None:
    image = Image.fromarray((disk() == 0).astype(np.uint8))
    image.putpalette([255, 255, 255, 0, 0, 0])
    read = read_mask_file(saved(tmp_path, image))
    np.testing.assert_array_equal(read.mask.ids, disk(value=1))
    assert any("black is not color 0" in note for note in read.notes)


def test_254_colors_are_objects_and_255_are_too_many(tmp_path: Path) -> None:
    def blocks(count: int) -> np.ndarray:
        numbers = np.zeros(256, int)
        numbers[:count] = np.arange(1, count + 1) * 60_001  # colors far apart
        colors = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], 1).astype(np.uint8)
        return colors.reshape(16, 16, 3).repeat(6, 0).repeat(6, 1)

    assert read_mask(saved(tmp_path, blocks(254))).objects == tuple(range(1, 255))
    with pytest.raises(InputError, match=r"256 colors.*at most 254 objects"):
        read_mask(saved(tmp_path, blocks(255)))


def test_a_gray_mask_with_every_value_there_is(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(6, 0).repeat(6, 1)
    with pytest.raises(InputError, match=r"256 colors.*at most 254"):
        read_mask(saved(tmp_path, every))


@pytest.mark.parametrize("blur", [0, 3, 7])
def test_soft_edges_are_recognized_and_the_fix_is_given(tmp_path: Path, blur: int) -> None:
    picture = disk(soft=True)
    if blur:
        picture = cv2.GaussianBlur(picture, (blur, blur), 0)
    with pytest.raises(InputError, match=r"soft|anti-alias") as caught:
        read_mask(saved(tmp_path, picture))
    assert "PNG" in caught.value.remedy


def test_the_fix_for_soft_edges_works(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="soft") as caught:
        read_mask(saved(tmp_path, disk(soft=True)))
    assert "--harden" in caught.value.remedy
    read = read_mask(tmp_path / "mask.png", harden=True)
    np.testing.assert_array_equal(read.ids, (disk(soft=True) > 127).astype(np.uint8))


def test_soft_edges_between_colors(tmp_path: Path) -> None:
    rgb, _ = three_colors()
    small = Image.fromarray(rgb.repeat(4, 0).repeat(4, 1)).resize((90, 60), Image.Resampling.BICUBIC)
    with pytest.raises(InputError, match="soft"):
        read_mask(saved(tmp_path, small))


def test_one_shade_between_black_and_white(tmp_path: Path) -> None:
    picture = disk()
    picture[cv2.dilate(picture, np.ones((3, 3), np.uint8)) != picture] = 128
    with pytest.raises(InputError, match="1 of its 3 colors"):
        read_mask(saved(tmp_path, picture))


def test_soft_edges_in_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(disk(soft=True)).convert("RGB").quantize(16)
    with pytest.raises(InputError, match="soft"):
        read_mask(saved(tmp_path, image))


def test_thin_and_small_objects_are_no_soft_edges(tmp_path: Path) -> None:
    ids = np.zeros((60, 80), np.uint8)
    ids[10:30, 10:30], ids[40:55, 10:70] = 9, 4
    for number, row in enumerate((2, 33, 36, 57)):
        ids[row, 5:75] = number + 5  # one pixel thin, its number between 0 and 9, but not between two objects
    np.testing.assert_array_equal(read_mask(saved(tmp_path, ids)).ids, ids)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_mask(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path, Image.fromarray(disk()).convert(mode), "mask.jpg")
    with pytest.raises(InputError, match=r"mask.jpg \(JPEG\)") as caught:
        read_mask(path)
    assert "PNG" in caught.value.remedy


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_photograph(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(2).normal(size=(30, 40, 3)).astype(np.float32)
    photo = cv2.resize(noise, (240, 180), interpolation=cv2.INTER_CUBIC) * 40 + 128
    photo += np.random.default_rng(3).normal(size=photo.shape) * 4
    image = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    with pytest.raises(InputError, match="colors"):
        read_mask(saved(tmp_path, image))


def test_all_transparent_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no object"):
        read_mask(saved(tmp_path, np.zeros((5, 5, 4), np.uint8)))
