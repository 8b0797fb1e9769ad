from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.training.pictures import disc, smooth_noise
from training import cutouts
from training.cutouts import blob, read_cutouts, segment_cutouts


def test_a_thing_is_cut_along_its_edge():
    """Regions at two scales, some a rim too small or too wide: one of them is the thing."""
    true_area = np.pi * (240 // 4) ** 2
    areas = [(cutout.alpha > 127).sum() / true_area for cutout in segment_cutouts([disc(240)])]
    assert min(abs(area - 1) for area in areas) < 0.1


def test_a_picture_without_edges_gives_no_parts():
    assert not list(segment_cutouts([np.full((90, 90, 3), 100, np.uint8)]))


def test_written_parts_are_read_back(tmp_path, monkeypatch):
    photos, parts = tmp_path / "photos", tmp_path / "parts"
    photos.mkdir()
    for name, picture in (("a", disc()), ("b", smooth_noise(1))):
        cv2.imwrite(str(photos / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    monkeypatch.setattr("sys.argv", ["cutouts", "--photos", str(photos), "--out", str(parts), "--per-photo", "2"])
    cutouts.main()
    read = read_cutouts(parts)
    assert 1 <= len(read) <= 4
    for cutout in read:
        assert cutout.picture.shape[:2] == cutout.alpha.shape
        assert cutout.alpha.max() > 200


def test_large_pictures_are_shrunk_and_cut_to_their_outline(tmp_path):
    bgra = np.zeros((600, 400, 4), np.uint8)
    bgra[100:500, 100:300] = 10, 20, 200, 255
    cv2.imwrite(str(tmp_path / "thing.png"), bgra)
    (cutout,) = read_cutouts(tmp_path, long_side=300)
    assert cutout.alpha.shape == (200, 100)
    assert cutout.picture[50, 50].tolist() == [200, 20, 10]  # RGB


def test_a_picture_without_transparency_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "flat.png"), disc())
    with pytest.raises(OSError, match=r"flat\.png"):
        read_cutouts(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_a_blob_is_one_piece_in_the_middle(seed):
    mask = blob((120, 160), np.random.default_rng(seed))
    assert mask.shape == (120, 160)
    assert cv2.connectedComponents((mask > 127).astype(np.uint8))[0] == 2
    assert 0.01 < (mask > 127).mean() < 0.6
