"""Stills in the containers of videos: the whole picture, never one tile of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propagate.errors import InputError
from propagate.video import open_video
from tests.video.clips import SIZE, paint, read_number


@pytest.mark.parametrize("name", ["a.avif", "a.mp4", "a.heif", "a"])
def test_an_avif_is_read_as_a_picture_whatever_its_name(tmp_path: Path, name: str) -> None:
    Image.fromarray(paint(5)).save(tmp_path / name, format="AVIF", quality=95)
    video = open_video(tmp_path / name)
    assert (video.info.reader, video.info.height, video.info.width) == ("folder", *SIZE)
    assert [read_number(frame.pixels) for frame in video] == [5]


def test_a_folder_of_avif(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(paint(number)).save(tmp_path / f"{number}.avif", quality=95)
    assert [read_number(frame.pixels) for frame in open_video(tmp_path)] == [0, 1, 2]


def test_a_sequence_of_avif_is_a_video(tmp_path: Path) -> None:
    frames = [Image.fromarray(paint(number)) for number in range(3)]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:], quality=95)
    assert open_video(tmp_path / "a.avif").info.reader != "folder"


@pytest.mark.parametrize("inside", [True, False])
def test_a_heic_is_refused_by_its_name_and_not_left_out(tmp_path: Path, inside: bool) -> None:
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(InputError, match=r"1\.heic is a HEIC picture"):
        open_video(tmp_path if inside else tmp_path / "1.heic")
