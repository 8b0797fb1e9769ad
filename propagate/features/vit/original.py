"""DINO's own checkpoints (facebookresearch/dino) as weights of transformers' `ViTModel`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from propagate.errors import UsageError, WeightsError

HEAD_CHANNELS = 64  # of all published models: ViT-S has 6 heads on 384 channels, ViT-B 12 on 768
LAYER_NORM_EPSILON = 1e-6  # vision_transformer.py

_PREFIXES = re.compile(r"^(module\.|backbone\.)+")
_HEAD = re.compile(r"^(head|fc)\.")  # of the training's loss, and the classifier that the backbone has no use for
_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)\.(weight|bias)$")
# transformers' names, in the spelling of the files it publishes
_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_INSIDE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_EXPECTED = "Name a backbone of facebookresearch/dino, or a folder with config.json and model.safetensors."


def backbone(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict of a checkpoint's backbone: the teacher's where it holds the networks of a training.

    Args:
        content: what the file holds.
        source: its name, for messages.

    Raises:
        WeightsError: it is not DINO's vision transformer.
    """
    state = content.get("teacher", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(f"{source} holds no state dict.", _EXPECTED)
    plain = {_PREFIXES.sub("", str(name)): value for name, value in state.items() if isinstance(value, Tensor)}
    tensors = {name: value for name, value in plain.items() if not _HEAD.match(name)}
    shapes = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    for name, dimensions in shapes.items():
        if name not in tensors or tensors[name].ndim != dimensions:
            raise WeightsError(f"{source} is not a vision transformer of DINO: it has no {name}.", _EXPECTED)
    return tensors


def infer_config(tensors: Mapping[str, Tensor], head_channels: int | None, source: str) -> dict[str, Any]:
    """The config of a backbone; all but the heads follows from the weights.

    Raises:
        UsageError: the width is no multiple of the channels of a head.
        WeightsError: the table of positions is not of a square grid.
    """
    width, channels, *patch = tensors["patch_embed.proj.weight"].shape
    if width % (head_channels or HEAD_CHANNELS):
        raise UsageError(
            f"features.head_channels = {head_channels or HEAD_CHANNELS}: {source} has {width} channels, which do not "
            "divide into heads of so many.",
            "The weights do not tell the heads; name the channels of one (64 in all published models).",
        )
    cells = tensors["pos_embed"].shape[1] - 1
    side = math.isqrt(max(cells, 0))
    if side**2 != cells or patch[0] != patch[1]:
        raise WeightsError(f"{source}: {cells} positions, patches {patch[1]}x{patch[0]}: not square.", _EXPECTED)
    blocks = {int(match[1]) for match in map(_BLOCK.match, tensors) if match}
    return {
        "model_type": "vit",
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch[0],
        "image_size": side * patch[0],
        "num_hidden_layers": max(blocks) + 1,
        "num_attention_heads": width // (head_channels or HEAD_CHANNELS),
        "intermediate_size": tensors["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "layer_norm_eps": LAYER_NORM_EPSILON,
    }


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under transformers' names; what has no place there keeps its name."""
    result: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = _BLOCK.match(name)
        if match is None:
            result[_OUTSIDE.get(name, name)] = value
            continue
        block, module, leaf = match.groups()
        layer = f"encoder.layer.{block}"
        if module == "attn.qkv":
            for part, third in zip(("query", "key", "value"), torch.tensor_split(value, 3), strict=True):
                result[f"{layer}.attention.attention.{part}.{leaf}"] = third.contiguous()
        else:
            result[f"{layer}.{_INSIDE.get(module, module)}.{leaf}"] = value
    return result
