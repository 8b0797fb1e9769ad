"""Colors of pictures that are counted in bands, and what reading the largest masks takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propagate.errors import InputError
from propagate.formats import read_mask, read_mask_file
from propagate.formats.masks import colors as mask_colors
from propagate.formats.masks.colors import count_colors, count_numbers


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colors_are_counted_as_in_one_piece(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    monkeypatch.setattr(mask_colors, "_BAND_PIXELS", 70)
    rgba = np.random.default_rng(0).integers(0, 3, (40, 30, 4)).astype(dtype) * (np.iinfo(dtype).max // 3)
    colors = count_colors(lambda band: rgba[band], 40, 30)
    codes = rgba[..., :3].astype(np.int64) @ np.array([1 << 32, 1 << 16, 1])
    codes[rgba[..., 3] <= np.iinfo(dtype).max // 2] = -1
    wanted, first, compact = np.unique(codes, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(colors.codes, wanted)
    np.testing.assert_array_equal(colors.first, first)
    np.testing.assert_array_equal(colors.compact, compact.reshape(40, 30))
    assert (colors.solid, colors.soft) == (False, True)
    numbers = codes % 7
    np.testing.assert_array_equal(count_numbers(numbers, 9), np.bincount(numbers.ravel(), minlength=9))
    where = codes % 2 == 0
    np.testing.assert_array_equal(count_numbers(numbers, 9, where), np.bincount(numbers[where], minlength=9))


def test_objects_of_many_bands_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_colors, "_BAND_PIXELS", 100)
    color = np.zeros((60, 50, 3), np.uint8)
    color[5:15, 30:45], color[20:35, 5:20], color[40:55, 5:45] = (9, 200, 9), (200, 9, 9), (9, 9, 200)
    Image.fromarray(color).save(tmp_path / "a.png")
    read = read_mask_file(tmp_path / "a.png")
    assert [int(read.mask.ids[y, x]) for y, x in ((10, 40), (30, 10), (50, 10))] == [1, 2, 3]
    assert "(9, 200, 9) is object 1" in read.notes[-1]


def test_a_picture_of_more_colors_than_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_colors, "MOST_COLORS", 500)
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    for harden in (False, True):
        with pytest.raises(InputError, match="photograph"):
            read_mask(tmp_path / "a.png", harden=harden)


def test_a_large_mask_is_read_in_few_bytes_for_each_pixel(tmp_path: Path) -> None:
    rgba = np.zeros((2500, 2500, 4), np.uint8)
    rgba[500:2000, 700:1500], rgba[:2100, :, 3] = (255, 0, 0, 255), 255
    Image.fromarray(rgba).save(tmp_path / "a.png", compress_level=1)
    code = """
import resource, sys
from propagate.formats import read_mask
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
read_mask(sys.argv[2])
start = peak()
print(read_mask(sys.argv[1]).objects, peak() - start)
"""
    Image.fromarray(rgba[490:520, 690:720]).save(tmp_path / "small.png")
    command = [sys.executable, "-c", code, tmp_path / "a.png", tmp_path / "small.png"]
    objects, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rsplit(maxsplit=1)
    assert objects == "(1, 2)"  # black that is not transparent, and red
    assert int(peak) < 24 * 2500 * 2500 >> 20
