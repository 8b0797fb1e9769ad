"""Vision transformers on disk: a folder in transformers' layout, or one of DINO's own checkpoints."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from propagate.errors import UsageError, WeightsError
from propagate.features.networks import configs, loading

# model_type of a config -> class in transformers, keywords of its constructor, kind of its config
_NETWORKS: dict[str, tuple[str, dict[str, Any], type[configs.NetworkConfig]]] = {
    "vit": ("ViTModel", {"add_pooling_layer": False}, configs.VitConfig),
    "dinov2": ("Dinov2Model", {}, configs.DinoV2Config),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}, configs.DinoV2RegistersConfig),
    "dinov3_vit": ("DINOv3ViTModel", {}, configs.DinoV3Config),
    "clip_vision_model": ("CLIPVisionModel", {}, configs.ClipVisionConfig),
}
_SPARE_VALUES = 1 << 20  # values that may be missing in the files, such as the token of masked training
# not needed for features: heads, the text tower of CLIP, the token of masked training
_UNUSED = re.compile(
    r"(^|\.)(pooler|classifier|text_model|text_projection|visual_projection|logit_scale|mask_token|position_ids)(\.|$)"
)


HEAD_CHANNELS = 64  # of all published models: ViT-S has 6 heads on 384 channels, ViT-B 12 on 768
LAYER_NORM_EPSILON = 1e-6  # vision_transformer.py

_PREFIXES = re.compile(r"^(module\.|backbone\.)+")
_HEAD = re.compile(r"^(head|fc)\.")  # of the training's loss, and a classifier
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

_Mean = Annotated[float, Field(ge=-1e3, le=1e3)]
_Std = Annotated[float, Field(ge=1e-3, le=1e3)]


class _Colors(configs.NetworkConfig):
    """The colors in `preprocessor_config.json`."""

    image_mean: Annotated[list[_Mean], Field(min_length=3, max_length=3)] | None = None
    image_std: Annotated[list[_Std], Field(min_length=3, max_length=3)] | None = None


@dataclass(frozen=True)
class VitFiles:
    """A vision transformer, not loaded."""

    kind: str  # `model_type` of its config; for CLIP that of the vision tower
    config: Mapping[str, Any]  # known keys of its `config.json`, checked
    source: Path  # the file or folder
    read: Callable[[], dict[str, Tensor]]  # loads the state dict, under the names of its files
    mean: list[float] | None = None  # colors of `preprocessor_config.json`
    std: list[float] | None = None


def open_vit(path: Path, kinds: Collection[str], head_channels: int | None = None) -> VitFiles:
    """Open the vision transformer at a path.

    Args:
        path: folder with `config.json` and weights, or a checkpoint of facebookresearch/dino (.pth).
        kinds: the supported values of `model_type`.
        head_channels: channels of an attention head, for checkpoints that are not published ones.
    """
    files = _open_checkpoint(path, head_channels) if path.is_file() else _open_folder(path)
    if files.kind not in kinds:
        raise WeightsError(
            f"{path} holds a model of the kind {files.kind or 'unknown'}, not of {' or '.join(sorted(kinds))}.",
            "Check features.name and features.weights.",
        )
    width, heads = files.config.get("hidden_size"), files.config.get("num_attention_heads")
    if head_channels is not None and width and heads and width != heads * head_channels:
        raise UsageError(
            f"features.head_channels = {head_channels}: the config of {path} says {width // heads}.", "Leave it out."
        )
    return files


def build_network(files: VitFiles, dtype: torch.dtype) -> Any:
    """Load the network on the CPU, with torch's fused attention; transformers translates the names of older files."""
    import transformers

    name, keywords, _ = _NETWORKS[files.kind]
    network = getattr(transformers, name)
    tensors = {key: value for key, value in files.read().items() if not _UNUSED.search(key)}
    with configs.building(files.source, name), _silent():
        config = network.config_class(**files.config)
        with torch.device("meta"):
            values = sum(parameter.numel() for parameter in network(config, **keywords).parameters())
    # before memory is allocated for values that the files do not have
    if values > sum(value.numel() for value in tensors.values()) + _SPARE_VALUES:
        raise loading.unfit(files.source, name, f"the config describes {values} values, and the files hold fewer")
    loading.check_floating(tensors, files.source)
    with configs.building(files.source, name), _silent():
        model, report = network.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            output_loading_info=True,
            **keywords,
        )
    problems = [
        *(f"{key} is missing" for key in sorted(report["missing_keys"]) if not _UNUSED.search(key)),
        *(f"{key} does not belong there" for key in sorted(report["unexpected_keys"])),
        *(f"{key} has the shape {tuple(there)}, not {tuple(own)}" for key, there, own in report["mismatched_keys"]),
        *report["error_msgs"],
    ]
    if problems:
        raise loading.unfit(files.source, name, problems[0])
    return model.eval().requires_grad_(False)


def _open_folder(folder: Path) -> VitFiles:
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder} is not a model's folder: it has no config.json.",
            "Name a folder in transformers' layout (config.json, model.safetensors).",
        )
    source = folder / "config.json"
    config = loading.read_config(source)
    kind = config.get("model_type")
    if kind == "clip":
        kind, config = "clip_vision_model", config.get("vision_config") or {}
    if not isinstance(kind, str) or kind not in _NETWORKS:
        return VitFiles(str(kind or ""), {}, folder, dict)
    checked = configs.checked_config(_NETWORKS[kind][2], config, source)
    files = loading.weight_files(folder)
    if not files:
        raise WeightsError(f"{folder} has a config but no weights (.safetensors).", "Fetch the whole folder.")
    colors: dict[str, Any] = {}
    if (preprocessor := folder / "preprocessor_config.json").is_file():
        colors = configs.checked_config(_Colors, loading.read_config(preprocessor), preprocessor)
    return VitFiles(
        kind, checked, folder, lambda: loading.read_shards(files), colors.get("image_mean"), colors.get("image_std")
    )


def _open_checkpoint(path: Path, head_channels: int | None) -> VitFiles:
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        raise WeightsError(f"{path} is part of a folder.", f"Name the folder: {path.parent}.")
    # training checkpoints also hold the script's options: plain values in a Namespace
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = loading.read_checkpoint(path)
    with configs.building(path, "vision transformer of DINO"):
        tensors = _backbone(content, str(path))
        inferred = _infer_config(tensors, head_channels, str(path))
    config = configs.checked_config(configs.VitConfig, inferred, path)
    return VitFiles("vit", config, path, lambda: _converted(tensors))


def _backbone(content: Any, source: str) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint's backbone; of a training's checkpoint the teacher's."""
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


def _infer_config(tensors: Mapping[str, Tensor], head_channels: int | None, source: str) -> dict[str, Any]:
    """Infer the config of a backbone from its weights, which show all but the heads."""
    width, channels, *patch = tensors["patch_embed.proj.weight"].shape
    head_channels = head_channels or HEAD_CHANNELS
    if width % head_channels:
        raise UsageError(
            f"features.head_channels = {head_channels}: {source} has {width} channels, not a multiple of that.",
            "The weights do not show the heads; name the channels of one (64 in all published models).",
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
        "num_attention_heads": width // head_channels,
        "intermediate_size": tensors["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "layer_norm_eps": LAYER_NORM_EPSILON,
    }


def _converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under transformers' names; unknown ones keep theirs."""
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


@contextmanager
def _silent() -> Iterator[None]:
    """Silence transformers' progress bars and reports: problems are raised."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
