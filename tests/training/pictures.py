"""Made-up photographs for the training tests."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def ramps(height: int = 260, width: int = 300) -> NDArray[np.uint8]:
    """A picture whose color tells the place: red is x, green is y."""
    xs, ys = np.meshgrid(np.linspace(20, 235, width), np.linspace(20, 235, height))
    return np.stack([xs, ys, np.full_like(xs, 128)], -1).astype(np.uint8)


def smooth_noise(seed: int, height: int = 260, width: int = 300) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    return cv2.resize(generator.integers(0, 255, (20, 24, 3), np.uint8), (width, height)).astype(np.uint8)


def disc(size: int = 90) -> NDArray[np.uint8]:
    """A photograph of one bright disc before a dark ground."""
    picture = np.full((size, size, 3), 40, np.uint8)
    return cv2.circle(picture, (size // 2, size // 2), size // 4, (230, 180, 60), cv2.FILLED).astype(np.uint8)
