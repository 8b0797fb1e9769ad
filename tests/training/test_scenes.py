from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.training.pictures import ramps, smooth_noise
from training.cutouts import Cutout
from training.scenes import PAIRS, SceneBatches, SceneSettings, make_scene


class SameLook:
    """No change of light, color, sharpness or compression."""

    @classmethod
    def draw(cls, rng):
        return cls()

    def apply(self, view, rng):
        return view


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [ramps(), *(smooth_noise(seed) for seed in range(3))]


@pytest.fixture(scope="module")
def cutouts() -> list[list[Cutout]]:
    """One red thing that covers its whole picture."""
    red = np.zeros((60, 80, 3), np.uint8)
    red[..., 0] = 255
    return [[Cutout(red, np.full((60, 80), 255, np.uint8))]]


@pytest.mark.parametrize("stride", [8, 4])
@pytest.mark.parametrize("seed", range(4))
def test_partners_show_the_same_place_of_the_photograph(photos, seed, stride, monkeypatch):
    """In a picture whose colors tell the place, a cell and its partner have the same color."""
    monkeypatch.setattr("training.scenes._Look", SameLook)
    settings = SceneSettings(max_pieces=0)
    scene = make_scene(photos[0], [], photos, np.random.default_rng(seed), settings)
    number = settings.strides.index(stride)
    cells = settings.size // stride

    def colors(view: int, points: np.ndarray) -> np.ndarray:
        points = points.astype(np.float32)
        return cv2.remap(scene.views[view], points[:, None, 0], points[:, None, 1], cv2.INTER_LINEAR)[:, 0, :2]

    for pair, (a, b) in enumerate(PAIRS):
        visible = scene.visible[number][pair]
        y, x = np.divmod(np.flatnonzero(visible), cells)
        if len(x) < 20:  # the camera has turned away
            continue
        here = np.stack([x, y], 1) * stride + (stride - 1) / 2
        there = (scene.partners[number][pair][visible] + 0.5) * stride - 0.5
        difference = np.abs(colors(a, here).astype(float) - colors(b, there).astype(float))
        assert np.median(difference) < 2
        assert np.quantile(difference, 0.98) < 6


@pytest.mark.parametrize("seed", range(6))
def test_shares_tell_what_the_cells_show(photos, cutouts, seed, monkeypatch):
    monkeypatch.setattr("training.scenes._Look", SameLook)
    settings = SceneSettings(max_pieces=1)
    scene = make_scene(
        photos[0], cutouts, [np.full((99, 99, 3), (255, 0, 0), np.uint8)] * 2, np.random.default_rng(seed), settings
    )
    assert scene.shares.sum(-1) == pytest.approx(1)
    for view, shares in zip(scene.views, scene.shares, strict=True):
        red = (view[..., 2] < 20).astype(np.float32)  # the photograph's blue is 128 everywhere
        expected = red.reshape(20, 8, 20, 8).mean((1, 3)).ravel()
        assert np.abs(shares[:, 1] - expected).max() < 0.3
        assert np.abs(shares[:, 1] - expected).mean() < 0.02


def test_what_a_piece_covers_has_no_partner(photos, cutouts):
    settings = SceneSettings(max_pieces=2)
    scenes = [make_scene(photos[0], cutouts, photos, np.random.default_rng(seed), settings) for seed in range(12)]
    pieces = np.array([scene.shares[..., 1:].sum(-1).mean() for scene in scenes])
    seen = np.array([scene.visible[0].mean() for scene in scenes])
    assert (pieces > 0.02).any()
    assert 0.2 < seen.mean() < 0.98


def test_a_partner_is_part_of_the_same_layer(photos, cutouts):
    settings = SceneSettings(max_pieces=3)
    for seed in range(6):
        scene = make_scene(photos[1], cutouts, photos, np.random.default_rng(seed), settings)
        for pair, (a, b) in enumerate(PAIRS):
            sure = scene.visible[0][pair] & (scene.shares[a].max(-1) == 1)
            places = np.clip(scene.partners[0][pair][sure].round().astype(int), 0, 19)
            layer = scene.shares[a][sure].argmax(-1)
            there = scene.shares[b].reshape(20, 20, -1)[places[:, 1], places[:, 0]]
            assert (there[np.arange(len(layer)), layer] > 0).mean() > 0.98


def test_batches_are_a_function_of_seed_and_number(photos, cutouts):
    options = {"batch": 2, "seed": 3}
    settings = SceneSettings(size=64)
    first = iter(SceneBatches(photos, cutouts, settings, start=0, **options))
    next(first)
    again = next(iter(SceneBatches(photos, cutouts, settings, start=1, **options)))
    for name, tensor in next(first).items():
        assert (tensor == again[name]).all()
    assert again["views"].shape == (6, 3, 64, 64)
    assert again["partner_8"].shape == (3, 2, 64, 2)
    assert again["visible_4"].shape == (3, 2, 256)
    assert again["shares"].shape == (3, 2, 64, 4)
