"""guided-diffusion checkpoints as diffusers models.

guided-diffusion (openai/guided-diffusion) saves a bare state dict without its options. All but one of them follow from
names and shapes, and diffusers' `UNet2DModel` can build the same network; only the channels of an attention head leave
no trace in the weights and are an option.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from propagate.errors import InputError, UsageError, WeightsError
from propagate.features.networks.configs import AdmConfig, building, checked_config
from propagate.features.networks.loading import check_fits, read_config, read_tensors

# num_head_channels of the published unconditional models. (The class-conditional 128 x 128 one has a fixed number of
# heads instead; class-conditional models are refused.)
PUBLISHED_HEAD_CHANNELS = 64
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
NORM_GROUPS = 32  # guided-diffusion's GroupNorm32

_MODULE = re.compile(r"(time_embed\.\d+|(?:input|output)_blocks\.\d+\.\d+|middle_block\.\d+|out\.\d+|label_emb)\.(.+)")
_FIXED_PLACES = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "op": "conv",  # downsampling without a residual block
    "conv": "conv",  # upsampling without a residual block
}
_EXPECTED = "Name a guided-diffusion U-Net (.pt, .safetensors) or a folder of `propagate models convert-adm`."

StateDict = dict[str, Tensor]


def open_checkpoint(path: Path, head_channels: int | None = None) -> tuple[UNet2DModel, StateDict]:
    """Return the network of a checkpoint, on the meta device, and its state dict in the file's dtype.

    Args:
        path: a guided-diffusion checkpoint (.pt or .safetensors) or a folder written by `convert_checkpoint`.
        head_channels: channels of an attention head; None: 64, or the number in the folder's config.
    """
    if path.is_dir():
        source = path / "config.json"
        config = checked_config(AdmConfig, {"_class_name": None, **read_config(source)}, source, UNet2DModel)
        if head_channels not in (None, config.get("attention_head_dim")):
            raise UsageError(
                f"features.head_channels = {head_channels}, but {path} was converted with "
                f"{config.get('attention_head_dim')}.",
                "Leave the option out, or convert the checkpoint again.",
            )
        tensors = read_tensors(path / WEIGHTS_NAME)
    else:
        checkpoint = read_tensors(path)
        with building(path, "guided-diffusion U-Net", _EXPECTED):
            inferred = _infer_config(checkpoint, head_channels or PUBLISHED_HEAD_CHANNELS, path)
            config = checked_config(AdmConfig, inferred, path)
            tensors = _converted(checkpoint, config)
    with building(path, "guided-diffusion U-Net", _EXPECTED):
        unet = build_unet(config)
    check_fits(unet, tensors, str(path))
    return unet, tensors


def build_unet(config: dict[str, Any]) -> UNet2DModel:
    """Build the network without weights, on the meta device."""
    with torch.device("meta"):
        unet = UNet2DModel(**config)
        base = config["time_embedding_dim"] // 4
        if base != config["block_out_channels"][0]:
            # the sinusoid has the base width; diffusers takes the first level's, which differs if the first
            # multiplier is not 1 (0.5 in the published 512 x 512 model)
            unet.time_proj = Timesteps(base, flip_sin_to_cos=True, downscale_freq_shift=0)
            unet.time_embedding = TimestepEmbedding(base, 4 * base)
    return unet


def convert_checkpoint(source: Path, folder: Path, head_channels: int | None = None) -> None:
    """Write a checkpoint atomically as a diffusers folder: `config.json` and safetensors, in the checkpoint's dtype.

    Raises:
        WeightsError: the checkpoint cannot be read or is something else.
        UsageError: head_channels does not fit.
        InputError: the folder exists and is not empty, or cannot be written.
    """
    unet, tensors = open_checkpoint(source, head_channels)
    unet.load_state_dict(tensors, assign=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already.", "Name another folder, or remove it first.")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        unet.save_pretrained(temporary, max_shard_size="100GB")
        temporary.chmod(0o755)  # mkdtemp gives access to its owner only
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be written ({error}).", "Check the disk, or name another.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _infer_config(state: StateDict, head_channels: int, path: Path) -> dict[str, Any]:
    """Return the keywords of `UNet2DModel` for a state dict; class-conditional models are refused."""
    modules: dict[str, set[str]] = defaultdict(set)
    for name in state:
        if (match := _MODULE.fullmatch(name)) is None:
            raise WeightsError(f"{path} is not a guided-diffusion U-Net: it has {name!r}.", _EXPECTED)
        modules[match[1]].add(match[2])
    if "label_emb" in modules:
        raise WeightsError(
            f"{path} is a class-conditional model.", "Take an unconditional one: there is no class here."
        )
    outputs = _count(modules, "output_blocks")
    resampled = [
        block for block in range(outputs) if {"in_layers.2.weight", "conv.weight"} & modules[_last_of(modules, block)]
    ]
    per_level = resampled[0] + 1 if resampled else outputs
    levels = len(resampled) + 1
    if (
        per_level < 2
        or resampled != [per_level * level - 1 for level in range(1, levels)]
        or not _count(modules, "input_blocks") == outputs == levels * per_level
    ):
        raise WeightsError(f"{path}: its blocks are not arranged as in a guided-diffusion U-Net.", _EXPECTED)
    try:
        base = state["time_embed.0.weight"].shape[1]
        in_channels = state["input_blocks.0.0.weight"].shape[1]
        firsts = [f"input_blocks.{1 + level * per_level}" for level in range(levels)]
        channels = [state[f"{first}.0.out_layers.3.weight"].shape[0] for first in firsts]
        embedded = state[f"{firsts[0]}.0.emb_layers.1.weight"].shape[0]
        out_channels = state["out.2.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise WeightsError(f"{path} is not a whole guided-diffusion U-Net ({error}).", _EXPECTED) from error
    if in_channels != 3:
        raise WeightsError(
            f"{path} takes {in_channels} input channels, not the 3 of a picture.",
            "A super-resolution model does not fit.",
        )
    down_attention = [f"{first}.1" in modules for first in firsts]
    up_attention = ["qkv.weight" in modules[f"output_blocks.{level * per_level}.1"] for level in range(levels)]
    attended = [width for width, attends in zip(channels, down_attention, strict=True) if attends]
    attended += [width for width, attends in zip(channels[::-1], up_attention, strict=True) if attends]
    if bad := [width for width in sorted({*attended, channels[-1]}) if width % head_channels]:
        raise UsageError(
            f"features.head_channels = {head_channels} does not divide the {bad[0]} channels of an attention block.",
            f"It is {PUBLISHED_HEAD_CHANNELS} in the published models; for others, num_head_channels in training.",
        )
    down = "resnet" if f"input_blocks.{per_level}.0.in_layers.2.weight" in state else "conv"
    up = "resnet" if resampled and "in_layers.2.weight" in modules[_last_of(modules, resampled[0])] else "conv"
    plain_down = "ResnetDownsampleBlock2D" if down == "resnet" else "DownBlock2D"
    plain_up = "ResnetUpsampleBlock2D" if up == "resnet" else "UpBlock2D"
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "block_out_channels": channels,
        "layers_per_block": per_level - 1,
        "down_block_types": ["AttnDownBlock2D" if attends else plain_down for attends in down_attention],
        "up_block_types": ["AttnUpBlock2D" if attends else plain_up for attends in up_attention],
        "downsample_type": down,
        "upsample_type": up,
        "attention_head_dim": head_channels,
        "norm_num_groups": NORM_GROUPS,
        "attn_norm_num_groups": NORM_GROUPS,
        "resnet_time_scale_shift": "scale_shift" if embedded == 2 * channels[0] else "default",
        "time_embedding_dim": 4 * base,
    }


def split_heads(qkv: Float[Tensor, "qkv ..."], head_channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a weight or bias in the legacy order (head 0's q, k and v, head 1's, ...) into query, key and value."""
    q, k, v = qkv.reshape(-1, 3, head_channels, *qkv.shape[1:]).unbind(1)
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


def _converted(state: StateDict, config: dict[str, Any]) -> StateDict:
    per_level = config["layers_per_block"] + 1
    converted = {}
    for name, value in state.items():
        match = _MODULE.fullmatch(name)
        assert match is not None  # checked by _infer_config
        module, inner = match.groups()
        layer, _, kind = inner.rpartition(".")
        place = _FIXED_PLACES.get(module) or _place(state, module, per_level)
        if layer == "qkv":
            flat = value.flatten(1) if kind == "weight" else value  # a 1x1 convolution is a linear layer
            for part, tensor in zip("qkv", split_heads(flat, config["attention_head_dim"]), strict=True):
                converted[f"{place}.to_{part}.{kind}"] = tensor
        else:
            flat = value.flatten(1) if inner == "proj_out.weight" else value
            converted[".".join(filter(None, [place, _LAYERS.get(layer, layer), kind]))] = flat
    return converted


def _place(state: StateDict, module: str, per_level: int) -> str:
    """Return the name in diffusers' tree of a sub-module of an input or output block."""
    side, block, position = module.split(".")
    attends, resamples = f"{module}.qkv.weight" in state, int(position) > 0
    if side == "input_blocks":
        level, layer = divmod(int(block) - 1, per_level)
        stage, resampler, resamples = f"down_blocks.{level}", "downsamplers.0", layer == per_level - 1
    else:
        level, layer = divmod(int(block), per_level)
        stage, resampler = f"up_blocks.{level}", "upsamplers.0"
    if attends:
        return f"{stage}.attentions.{layer}"
    return f"{stage}.{resampler}" if resamples else f"{stage}.resnets.{layer}"


def _count(modules: dict[str, set[str]], side: str) -> int:
    numbers = {int(module.split(".")[1]) for module in modules if module.startswith(f"{side}.")}
    return len(numbers) if numbers == set(range(len(numbers))) else 0


def _last_of(modules: dict[str, set[str]], block: int) -> str:
    position = max(int(module.split(".")[2]) for module in modules if module.startswith(f"output_blocks.{block}."))
    return f"output_blocks.{block}.{position}" if position else ""
