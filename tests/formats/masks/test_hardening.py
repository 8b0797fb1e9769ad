"""Masks drawn with soft brushes or saved as JPEG, hardened: what a person would expect to be marked."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from propagate.errors import InputError
from propagate.formats import read_mask, read_mask_file

HEIGHT, WIDTH = 90, 120
WHITE, BLACK, RED, GREEN, GRAY = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (128, 128, 128)


def inside(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(columns - x, rows - y) - radius


def brush(x: float, y: float, radius: float, softness: float) -> np.ndarray:
    """Opacity of a round brush that falls off around its radius."""
    return np.clip(0.5 - inside(x, y, radius) / max(softness, 1e-6), 0, 1)


def painted(*layers: tuple[tuple[int, int, int], np.ndarray], ground: tuple[int, int, int] = WHITE) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), ground, np.float64)
    for color, opacity in layers:
        picture += opacity[..., None] * (np.array(color) - picture)
    return np.round(picture).astype(np.uint8)


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found & wanted).sum() / (found | wanted).sum())


def saved(tmp_path: Path, pixels: np.ndarray, name: str = "mask.png", **options: object) -> Path:
    Image.fromarray(pixels).save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("softness", [2, 6, 20, 40])
@pytest.mark.parametrize(
    ("color", "ground"), [(RED, WHITE), (RED, BLACK), (WHITE, BLACK), (GRAY, BLACK), (BLACK, WHITE)]
)
def test_a_soft_brush_is_cut_at_one_half(
    tmp_path: Path, softness: float, color: tuple[int, int, int], ground: tuple[int, int, int]
) -> None:
    path = saved(tmp_path, painted((color, brush(60, 45, 25, softness)), ground=ground))
    with pytest.raises(InputError) as caught:
        read_mask(path)
    assert "--harden" in caught.value.remedy
    read = read_mask_file(path, frame_size=(HEIGHT, WIDTH), harden=True)
    assert read.mask.size == (HEIGHT, WIDTH)
    found = read.mask.ids == 1 if color != BLACK else read.mask.ids != 1
    assert overlap(found, inside(60, 45, 25) < 0) > 0.95
    assert any(str(color) in note and str(ground) in note and "flat colors" in note for note in read.notes)


def test_a_brush_without_a_flat_core(tmp_path: Path) -> None:
    opacity = np.exp(-(np.maximum(inside(60, 45, 0), 0) ** 2) / 200)
    read = read_mask(saved(tmp_path, painted((RED, opacity))), harden=True)
    assert read.objects == (1,)
    assert overlap(read.ids == 1, opacity > 0.5) > 0.9


def test_a_soft_brush_over_transparent(tmp_path: Path) -> None:
    opacity = brush(60, 45, 25, 20)
    rgba = np.dstack([np.full((HEIGHT, WIDTH, 3), RED, np.uint8), np.round(255 * opacity).astype(np.uint8)])
    assert overlap(read_mask(saved(tmp_path, rgba), harden=True).ids == 1, inside(60, 45, 25) < 0) > 0.97


@pytest.mark.parametrize("ground", [WHITE, BLACK])
def test_two_soft_colors_that_touch(tmp_path: Path, ground: tuple[int, int, int]) -> None:
    picture = painted((RED, brush(40, 45, 25, 3)), (GREEN, brush(80, 45, 25, 3)), ground=ground)
    read = read_mask(saved(tmp_path, picture), harden=True)
    green = inside(80, 45, 25) < 0
    red = (inside(40, 45, 25) < 0) & ~green
    assert read.objects == (1, 2)
    numbers = {name: read.ids[y, x] for name, (x, y) in {"red": (30, 45), "green": (90, 45)}.items()}
    assert overlap(read.ids == numbers["red"], red) > 0.95
    assert overlap(read.ids == numbers["green"], green) > 0.95


def test_a_rim_is_no_object_of_its_shade(tmp_path: Path) -> None:
    picture = painted((WHITE, brush(35, 45, 25, 4)), (GRAY, brush(95, 45, 15, 4)), ground=BLACK)
    read = read_mask(saved(tmp_path, picture), harden=True)
    gray = read.ids == read.ids[45, 95]
    assert not gray[:, :70].any()
    assert overlap(gray, inside(95, 45, 15) < 0) > 0.95


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_flat_mask_that_was_compressed(tmp_path: Path, quality: int, suffix: str) -> None:
    picture = painted((RED, brush(35, 45, 25, 0)), (GREEN, brush(90, 45, 20, 0)), ground=BLACK)
    path = saved(tmp_path, picture, f"mask.{suffix}", quality=quality)
    with pytest.raises(InputError) as caught:
        read_mask(path)
    assert "--harden" in caught.value.remedy
    read = read_mask(path, harden=True)
    assert read.objects == (1, 2)
    for x, radius in ((35, 25), (90, 20)):
        assert overlap(read.ids == read.ids[45, x], inside(x, 45, radius) < 0) > 0.9


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_black_and_white_jpeg(tmp_path: Path, mode: str) -> None:
    flat = painted((WHITE, brush(60, 45, 25, 0)), ground=BLACK)
    Image.fromarray(flat).convert(mode).save(tmp_path / "mask.jpg", quality=80)
    read = read_mask(tmp_path / "mask.jpg", harden=True)
    assert overlap(read.ids == 1, inside(60, 45, 25) < 0) > 0.97


def test_a_palette_of_shades_goes_by_its_colors(tmp_path: Path) -> None:
    image = Image.fromarray(painted((RED, brush(60, 45, 25, 6)))).quantize(16)
    image.save(tmp_path / "mask.png")
    read = read_mask(tmp_path / "mask.png", harden=True)
    assert overlap(read.ids == 1, inside(60, 45, 25) < 0) > 0.9


def test_flat_masks_are_left_alone(tmp_path: Path) -> None:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[20:40, 20:40], ids[40:60, 20:90] = 7, 9
    path = saved(tmp_path, ids)
    np.testing.assert_array_equal(read_mask(path, harden=True).ids, ids)
    assert read_mask_file(path, harden=True).notes == ()


def test_a_photograph_is_still_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).normal(size=(9, 12, 3)).astype(np.float32)
    photo = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 40 + 128
    path = saved(tmp_path, photo.clip(0, 255).astype(np.uint8))
    with pytest.raises(InputError, match="colors"):
        read_mask(path, harden=True)
