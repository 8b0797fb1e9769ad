"""What the families of vision transformers differ in, as their published evaluations have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from propagate.features.vit.positions import PositionRule

Color = tuple[float, float, float]

IMAGENET_MEAN: Color = (0.485, 0.456, 0.406)
IMAGENET_STD: Color = (0.229, 0.224, 0.225)
CLIP_MEAN: Color = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Color = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        positions: `model_type` of the configs that belong to it -> how its table of positions is brought to another
            grid; None where there is no table (rotary positions).
        models: name of a published variant -> name in the registry of models; the first one is the default.
        mean, std: of the colors in training, in [0, 1] RGB.
        final_norm: the published features are taken after the network's final norm.
        half: the type of half precision.
        access: what has to be done before the weights can be had; empty where nothing has to.
    """

    positions: Mapping[str, PositionRule | None]
    models: Mapping[str, str]
    mean: Color = IMAGENET_MEAN
    std: Color = IMAGENET_STD
    final_norm: bool = True
    half: torch.dtype = torch.float16
    access: str = ""


def _named(prefix: str, *variants: str) -> dict[str, str]:
    return {variant: f"{prefix}-{variant}" for variant in variants}


# vision_transformer.py of facebookresearch/dino; ViT-S/16 is the default of its video script
DINO = Family({"vit": PositionRule(0.1)}, _named("dino", "vits16", "vits8", "vitb16", "vitb8"))

# hub/backbones.py of facebookresearch/dinov2: an offset of 0.1, and for registers none but antialiasing
DINOV2 = Family(
    {"dinov2": PositionRule(0.1), "dinov2_with_registers": PositionRule(0, antialias=True)},
    _named("dinov2", "base", "small", "large", "giant", "base-registers", "small-registers", "large-registers")
    | _named("dinov2", "giant-registers"),
)

# no float16: an author's word in facebookresearch/dinov3, thread 181
DINOV3 = Family(
    {"dinov3_vit": None},
    _named("dinov3", "vitb16", "vits16", "vits16plus", "vitl16", "vith16plus", "vitl16-sat493m"),
    half=torch.bfloat16,
    access="DINOv3's licence has to be accepted first, on the hub's page of the repository {repository}; "
    "then log in with `hf auth login`.",
)

# DIFT's baseline (its clip.py): the raw output of a block, no norm; the offset as in DINO
OPENCLIP = Family(
    {"clip_vision_model": PositionRule(0.1)},
    _named("openclip", "vith14"),
    mean=CLIP_MEAN,
    std=CLIP_STD,
    final_norm=False,
)
