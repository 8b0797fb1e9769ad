"""Published evaluations on tiny models (`data/vit_tiny_0`): DINO, DINOv2 without and with registers, DINOv3, CLIP."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from propagate.features import build_extractor
from propagate.features.vit.positions import PositionRule, interpolate_positions
from propagate.features.vit.vit import VisionTransformer
from propagate.geometry import resize_frame, to_tensor, working_size
from propagate.settings import load_settings
from tests.places import PARITY_DATA

DATA = PARITY_DATA / "vit_tiny_0"
VIDEO_STD = (0.228, 0.224, 0.225)  # of DINO's video script
TOLERANCE = 1e-5  # relative L2; the furthest, DINO, is at 4e-7


@cache
def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(DATA / f"{name}_features.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def build(name: str, weights: str, **options: Any) -> VisionTransformer:
    extractor = build_extractor(name, weights=DATA / weights, device="cpu", **options)
    assert isinstance(extractor, VisionTransformer)
    return extractor


def picture(name: str, key: str = "image_u8") -> torch.Tensor:
    return to_tensor(golden(name)[key].numpy())[None]


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 of a (1, C, h, w) map and an (h, w, C) one."""
    found = found[0].permute(1, 2, 0)
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def dino_frame(case: str) -> torch.Tensor:
    """The frame as the preset's rule gives it to a ViT with patches of 8, with a short side of 128."""
    pixels = golden("dino")[f"{case}_image_u8"].numpy()
    video = load_settings("dino_davis", ["video.short_side=128"]).video
    return to_tensor(resize_frame(pixels, working_size(pixels.shape[:2], multiple=8, **video.sizing)))[None]


@pytest.mark.parametrize("weights", ["dino_hf", "dino_original_state_dict.pth"])
@pytest.mark.parametrize("case", ["wide", "tall"])
@pytest.mark.parametrize(("layer", "key"), [(-1, "features"), (2, "features"), (-2, "features_n2"), (1, "features_n2")])
def test_dino(case, weights, layer, key):
    extractor = build("dino", weights, layer=layer, std=VIDEO_STD, head_channels=16)
    assert (extractor.stride, extractor.channels, extractor.multiple) == (8, 48, 8)
    assert distance(extractor(dino_frame(case)), golden("dino")[f"{case}_{key}"]) < TOLERANCE


def test_the_frame_dino_is_given():
    """Exact with OpenCV 5; other releases round some pixels to the other side."""
    given = build("dino", "dino_hf", std=VIDEO_STD).normalized(dino_frame("wide"))[0]
    torch.testing.assert_close(given, golden("dino")["wide_input"], atol=0.02, rtol=0)


def test_the_preset_is_the_script():
    chosen = load_settings("dino_davis", [f"features.weights={DATA / 'dino_hf'}", "features.device=cpu"])
    extractor = build_extractor(chosen.features.name, **chosen.features.options)
    assert distance(extractor(dino_frame("tall")), golden("dino")["tall_features"]) < TOLERANCE


@pytest.mark.parametrize(("case", "grid"), [("wide", (16, 32)), ("tall", (24, 16))])
def test_positions_of_dino(case, grid):
    table = torch.load(DATA / "dino_original_state_dict.pth", weights_only=True)["pos_embed"]
    moved = interpolate_positions(table, (12, 12), grid, PositionRule(0.1))[0]
    torch.testing.assert_close(moved, golden("dino")[f"{case}_pos"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "data", "weights", "stride"),
    [
        ("dinov2", "dinov2", "dinov2_hf", 14),
        ("dinov2", "dinov2_reg", "dinov2_reg_hf", 14),
        ("dinov3", "dinov3", "dinov3_hf", 16),
    ],
)
@pytest.mark.parametrize(("options", "key"), [({}, "features"), ({"norm": False}, "features_prenorm")])
def test_dinov2_and_dinov3(name, data, weights, stride, options, key):
    extractor = build(name, weights, **options)
    assert (extractor.stride, extractor.channels) == (stride, 48)
    torch.testing.assert_close(extractor.normalized(picture(data))[0], golden(data)["input"], atol=1e-6, rtol=1e-6)
    assert distance(extractor(picture(data)), golden(data)[key]) < TOLERANCE


@pytest.mark.parametrize("block", range(3))
def test_openclip(block):
    extractor = build("openclip", "clip_hf", layer=block)
    torch.testing.assert_close(extractor.normalized(picture("clip"))[0], golden("clip")["input"], atol=1e-6, rtol=1e-6)
    assert distance(extractor(picture("clip")), golden("clip")[f"features_block{block}"]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "data", "weights", "image", "key", "options"),
    [
        ("dinov2", "dinov2", "dinov2_hf", "image_u8", "features_transformers", {}),
        ("dinov2", "dinov2_reg", "dinov2_reg_hf", "image_u8", "features_transformers", {}),
        ("openclip", "clip", "clip_hf", "image_u8", "features_block1_transformers", {"layer": 1}),
        ("openclip", "clip", "clip_hf", "wide_image_u8", "wide_features_block1_transformers", {"layer": 1}),
    ],
)
def test_without_the_offset_positions_are_those_of_transformers(name, data, weights, image, key, options):
    extractor = build(name, weights, position_offset=0, **options)
    assert distance(extractor(picture(data, image)), golden(data)[key]) < TOLERANCE


def test_without_the_offset_dino_is_the_transformers_class():
    extractor = build("dino", "dino_hf", std=VIDEO_STD, position_offset=0)
    assert distance(extractor(dino_frame("wide")), golden("dino")["wide_features_transformers"]) < TOLERANCE


def test_dinov3_is_the_transformers_class():
    extractor = build("dinov3", "dinov3_hf")
    assert distance(extractor(picture("dinov3")), golden("dinov3")["features_transformers"]) < TOLERANCE
