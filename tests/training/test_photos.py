from __future__ import annotations

import cv2
import pytest

from tests.training.pictures import ramps
from training.photos import load_photos


def test_photos_are_shrunk_to_the_short_side(tmp_path):
    cv2.imwrite(str(tmp_path / "b.jpg"), ramps(520, 600)[..., ::-1])
    cv2.imwrite(str(tmp_path / "a.jpg"), ramps(100, 90)[..., ::-1])
    small, large = load_photos(tmp_path)
    assert small.shape == (100, 90, 3)
    assert large.shape == (256, 295, 3)
    assert large[0, -1, 0] > 200 > 100 > large[-1, 0, 0]  # RGB


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no \.jpg file"):
        load_photos(tmp_path)


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"a\.jpg cannot be decoded"):
        load_photos(tmp_path)
