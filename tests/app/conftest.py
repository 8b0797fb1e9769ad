"""Tiny clips: a light, textured square that moves one grid cell (8 pixels) a frame over a dark, textured ground."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from propagate.app.program import app
from propagate.formats import VideoWriter, write_mask
from propagate.types import Mask

HEIGHT, WIDTH, FRAMES = 64, 96, 8
SMALL = ("--config", "rgb", "--set", "video.short_side=64", "--device", "cpu")

Run = Callable[..., Result]


def square_ids(index: int) -> np.ndarray:
    """(H, W) uint8: object 1 of frame `index`."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[16:40, 8 + 8 * index : 32 + 8 * index] = 1
    return ids


def picture(index: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: frame `index`."""
    ground, square = _texture(0, (20, 30, 60)), _texture(1, (190, 140, 40))
    inside = square_ids(index) == 1
    pixels = ground.copy()
    pixels[inside] = np.roll(square, 8 * index, axis=1)[inside]
    return pixels


def _texture(seed: int, color: tuple[int, int, int]) -> np.ndarray:
    # blocks of 4 x 4 pixels, so that every grid cell of 8 x 8 looks different from its neighbours
    blocks = np.random.default_rng(seed).integers(0, 60, (HEIGHT // 4, WIDTH // 4, 3))
    return (np.array(color) + blocks.repeat(4, 0).repeat(4, 1)).astype(np.uint8)


def write_video(path: Path, frames: int = FRAMES) -> Path:
    with VideoWriter(path, rate=10) as video:
        for index in range(frames):
            video.write(picture(index))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    path = tmp_path / "first.png"
    write_mask(path, Mask(square_ids(0)))
    return path


@pytest.fixture
def keypoints(tmp_path: Path) -> Path:
    path = tmp_path / "points.csv"
    path.write_text("name,x,y\nleft,12,20\nmiddle,20,28\n")
    return path


@pytest.fixture
def run() -> Run:
    """The command line in this process; arguments may be paths."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def usual_signals():
    """Signals as a terminal has them: in the background of a shell and under nohup some are ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
