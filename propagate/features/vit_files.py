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
from propagate.features import vit_original
from propagate.features.weight_files import folder_component, read_checkpoint, read_config

# model_type of a config -> class in transformers and the keywords its constructor needs
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTModel", {"add_pooling_layer": False}),
    "dinov2": ("Dinov2Model", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}),
    "dinov3_vit": ("DINOv3ViTModel", {}),
    "clip_vision_model": ("CLIPVisionModel", {}),
}
# what features do not need: heads, the text tower of CLIP, the token of masked training
_UNUSED = re.compile(
    r"(^|\.)(pooler|classifier|text_model|text_projection|visual_projection|logit_scale|mask_token|position_ids)(\.|$)"
)


@dataclass(frozen=True)
class VitFiles:
    """A vision transformer, not loaded.

    Attributes:
        kind: `model_type` of its config, of CLIP that of the vision tower.
        config: as in its `config.json`.
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

    name, keywords = _NETWORKS[files.kind]
    network = getattr(transformers, name)
    tensors = {key: value for key, value in files.read().items() if not _UNUSED.search(key)}
    try:
        config = network.config_class.from_dict(dict(files.config))
        with _silent(), torch.device("meta"):
            network(config, **keywords)
    except Exception as error:  # whatever a wrong value leads to inside the library
        raise WeightsError(f"The config of {files.source} makes no {name} ({error}).", "Fetch it again.") from error
    try:
        with _silent():
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
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _unfit(files, name, str(error)) from error
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
    component = folder_component(folder)
    kind, config, read = str(component.config.get("model_type", "")), component.config, component.read
    if kind == "clip":
        kind, config = "clip_vision_model", component.config.get("vision_config") or {}
    colors: Mapping[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        colors = read_config(folder / "preprocessor_config.json")
    mean, std = (_three(colors.get(key)) for key in ("image_mean", "image_std"))
    return VitFiles(kind, config, folder, read, mean, std)


def _open_checkpoint(path: Path, head_channels: int | None) -> VitFiles:
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        raise WeightsError(f"{path} is part of a folder.", f"Name the folder: {path.parent}.")
    # training checkpoints hold the script's options beside the networks: plain values in a Namespace
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = read_checkpoint(path)
    tensors = vit_original.backbone(content, str(path))
    config = vit_original.infer_config(tensors, head_channels, str(path))
    return VitFiles("vit", config, path, lambda: vit_original.converted(tensors))


def _three(values: Any) -> tuple[float, ...] | None:
    if isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values):
        return tuple(float(value) for value in values)
    return None


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
