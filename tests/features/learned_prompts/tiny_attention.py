"""A tiny Stable Diffusion with random weights whose attention finds a bright square after a few steps of learning."""

from __future__ import annotations

import numpy as np
import torch

from propagate.features import build_extractor
from propagate.features.learned_prompts.prompt_attention import PromptAttention
from propagate.types import Keypoints, Mask
from tests.places import PARITY_DATA

SD_TINY = PARITY_DATA / "sd_tiny_0" / "pipeline"
SIZE = (64, 96)
# the published rate and layers are for real weights, pictures of 512 pixels and 129 steps
QUICK = {
    "weights": SD_TINY,
    "layers": [[3, 0]],
    "steps": 30,
    "learning_rate": 0.1,
    "sigma": 0.15,
    "checkpointing": False,
}


def tiny_attention(**options: object) -> PromptAttention:
    return build_extractor("prompt_attention", device="cpu", **{**QUICK, **options})


def pixels(shift: int = 0) -> np.ndarray:
    """(64, 96, 3) uint8: a bright square, its top left corner at (16 + shift, 16), over a dark ground."""
    generator = np.random.default_rng(0)
    ground = generator.integers(0, 60, (16, 24, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    ground[16:48, 16 + shift : 48 + shift] = generator.integers(170, 255, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
    return ground


def picture(shift: int = 0) -> torch.Tensor:
    return torch.from_numpy(pixels(shift)).permute(2, 0, 1).float() / 255


def square_mask() -> Mask:
    ids = np.zeros(SIZE, np.uint8)
    ids[16:48, 16:48] = 3
    return Mask(ids)


def middle() -> Keypoints:
    """A joint in the middle of the square and one that is absent."""
    return Keypoints(np.array([[31.5, 31.5], [np.nan, np.nan]], np.float32), ("middle", "gone"))
