from __future__ import annotations

import cv2
import numpy as np
import pytest

from training.photos import load_photos
from training.views import CropBatches, PairBatches, ViewSettings, make_pair, random_crop


def ramps(height: int = 260, width: int = 300) -> np.ndarray:
    """A picture whose color tells the place: red is x, green is y."""
    xs, ys = np.meshgrid(np.linspace(20, 235, width), np.linspace(20, 235, height))
    return np.stack([xs, ys, np.full_like(xs, 128)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    noise = [cv2.resize(generator.integers(0, 255, (20, 24, 3), np.uint8), (300, 260)) for _ in range(3)]
    return [ramps(), *noise]


def test_a_crop_is_a_square_of_the_asked_size(photos):
    crop = random_crop(photos[1], 64, np.random.default_rng(0))
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8


@pytest.mark.parametrize("seed", range(6))
def test_partners_show_the_same_place_of_the_photograph(photos, seed, monkeypatch):
    """With the photometric changes off, a cell and its partner have the same colors, which tell the place."""
    monkeypatch.setattr("training.views._photometric", lambda view, rng: np.ascontiguousarray(view))
    settings = ViewSettings(max_pieces=0)
    pair = make_pair(photos, 0, np.random.default_rng(seed), settings)
    cells = settings.size // settings.stride
    y, x = np.divmod(np.flatnonzero(pair.has_partner), cells)
    assert len(x) > 20
    here = np.stack([x, y], 1) * settings.stride + (settings.stride - 1) / 2
    there = (pair.partner[pair.has_partner] + 0.5) * settings.stride - 0.5

    def colors(view: np.ndarray, points: np.ndarray) -> np.ndarray:
        points = points.astype(np.float32)
        return cv2.remap(view, points[:, None, 0], points[:, None, 1], cv2.INTER_LINEAR)[:, 0, :2].astype(float)

    difference = np.abs(colors(pair.view_a, here) - colors(pair.view_b, there))
    assert np.median(difference) < 2
    assert np.quantile(difference, 0.98) < 6


def test_pieces_move_on_their_own_and_hide_what_is_behind(photos):
    settings = ViewSettings(max_pieces=2)
    shares = [make_pair(photos, 0, np.random.default_rng(seed), settings).has_partner.mean() for seed in range(12)]
    assert 0.2 < np.mean(shares) < 0.98


def test_batches_are_a_function_of_seed_and_number(photos):
    options = {"batch": 2, "seed": 3}
    first = iter(PairBatches(photos, ViewSettings(), start=0, **options))
    next(first)
    for one, other in zip(
        next(first), next(iter(PairBatches(photos, ViewSettings(), start=1, **options))), strict=True
    ):
        assert (one == other).all()
    crops = iter(CropBatches(photos, size=32, start=0, **options))
    next(crops)
    assert (next(crops) == next(iter(CropBatches(photos, size=32, start=1, **options)))).all()


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
