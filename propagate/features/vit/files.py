"""Vision transformers from the disk: a folder in transformers' layout, or one of DINO's own checkpoints."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from propagate.errors import UsageError, WeightsError
from propagate.features.networks.configs import NetworkConfig, building, checked_config
from propagate.features.networks.loading import read_checkpoint, read_config, read_shards, weight_files
from propagate.features.networks.transformer_configs import (
    ClipVisionConfig,
    DinoV2Config,
    DinoV2RegistersConfig,
    DinoV3Config,
    VitConfig,
)
from propagate.features.vit import original as vit_original

# model_type of a config -> class in transformers, the keywords its constructor needs, what its config is
_NETWORKS: dict[str, tuple[str, dict[str, Any], type[NetworkConfig]]] = {
    "vit": ("ViTModel", {"add_pooling_layer": False}, VitConfig),
    "dinov2": ("Dinov2Model", {}, DinoV2Config),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}, DinoV2RegistersConfig),
    "dinov3_vit": ("DINOv3ViTModel", {}, DinoV3Config),
    "clip_vision_model": ("CLIPVisionModel", {}, ClipVisionConfig),
}
_SPARE_VALUES = 1 << 20  # that a network may have beside those in its files, such as the token of masked training
# what features do not need: heads, the text tower of CLIP, the token of masked training
_UNUSED = re.compile(
    r"(^|\.)(pooler|classifier|text_model|text_projection|visual_projection|logit_scale|mask_token|position_ids)(\.|$)"
)


@dataclass(frozen=True)
class VitFiles:
    """A vision transformer, not loaded.

    Attributes:
        kind: `model_type` of its config, of CLIP that of the vision tower.
        config: known keys of its `config.json`, checked.
        source: the file or folder.
        read: state dict under the names its files have.
        mean, std: of the colors, where `preprocessor_config.json` says them.
    """

    kind: str
    config: Mapping[str, Any]
    source: Path
    read: Callable[[], dict[str, Tensor]]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def open_vit(path: Path, kinds: Collection[str], head_channels: int | None = None) -> VitFiles:
    """The vision transformer at a path.

    Args:
        path: folder with `config.json` and weights, or a checkpoint of facebookresearch/dino (.pth).
        kinds: the `model_type` that will do.
        head_channels: channels of an attention head; needed for checkpoints of other widths than the published.

    Raises:
        WeightsError: something is missing, damaged or of another architecture.
        UsageError: head_channels does not fit.
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
    """The network with its weights, on the CPU, with torch's fused attention.

    Names of older files are translated by transformers.

    Raises:
        WeightsError: config and weights do not fit together, or make no network.
    """
    import transformers

    name, keywords, _ = _NETWORKS[files.kind]
    network = getattr(transformers, name)
    tensors = {key: value for key, value in files.read().items() if not _UNUSED.search(key)}
    with building(files.source, name), _silent():
        config = network.config_class(**files.config)
        with torch.device("meta"):
            wanted = sum(parameter.numel() for parameter in network(config, **keywords).parameters())
    # before memory is taken for what the files do not have
    if wanted > sum(value.numel() for value in tensors.values()) + _SPARE_VALUES:
        raise _unfit(files, name, f"the config describes {wanted} values, and the files hold fewer")
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise _unfit(files, name, f"{key} holds {str(value.dtype).removeprefix('torch.')}, which is quantized")
    with building(files.source, name), _silent():
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
        raise _unfit(files, name, problems[0])
    return model.eval().requires_grad_(False)


def _open_folder(folder: Path) -> VitFiles:
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder} is not a model's folder: it has no config.json.",
            "Name a folder in transformers' layout (config.json, model.safetensors).",
        )
    source = folder / "config.json"
    config = read_config(source)
    kind = config.get("model_type")
    if kind == "clip":
        kind, config = "clip_vision_model", config.get("vision_config") or {}
    if not isinstance(kind, str) or kind not in _NETWORKS:
        return VitFiles(str(kind or ""), {}, folder, dict)
    checked = checked_config(_NETWORKS[kind][2], config, source)
    files = weight_files(folder)
    if not files:
        raise WeightsError(f"{folder} has a config but no weights (.safetensors).", "Fetch the whole folder.")
    colors: Mapping[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        colors = read_config(folder / "preprocessor_config.json")
    mean, std = (_three(colors, key, folder / "preprocessor_config.json") for key in ("image_mean", "image_std"))
    return VitFiles(kind, checked, folder, lambda: read_shards(files), mean, std)


def _open_checkpoint(path: Path, head_channels: int | None) -> VitFiles:
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        raise WeightsError(f"{path} is part of a folder.", f"Name the folder: {path.parent}.")
    # training checkpoints hold the script's options beside the networks: plain values in a Namespace
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = read_checkpoint(path)
    with building(path, "vision transformer of DINO"):
        tensors = vit_original.backbone(content, str(path))
        inferred = vit_original.infer_config(tensors, head_channels, str(path))
    config = checked_config(VitConfig, inferred, path)
    return VitFiles("vit", config, path, lambda: vit_original.converted(tensors))


def _three(colors: Mapping[str, Any], key: str, source: Path) -> tuple[float, ...] | None:
    """Mean or standard deviation of the colors; None where the file does not say it."""
    values = colors.get(key)
    if values is None:
        return None
    is_std = key == "image_std"
    if not isinstance(values, list) or len(values) != 3 or not all(_is_color(value, is_std) for value in values):
        raise WeightsError(f"{source}: {key} = {values!r} is not three numbers of a color.", "Fetch the file again.")
    return tuple(float(value) for value in values)


def _is_color(value: object, is_std: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1e-3 <= value <= 1e3 if is_std else abs(value) <= 1e3


def _unfit(files: VitFiles, name: str, problem: str) -> WeightsError:
    return WeightsError(
        f"{files.source} does not hold the weights of its config's {name}: {problem}.",
        "Config and weights have to be of the same model.",
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' own bars and reports: what is wrong is raised."""
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
