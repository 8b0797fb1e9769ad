"""Small Stable Diffusion pipelines of any shape with random weights, as folders and as original-layout checkpoints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from tests.places import PARITY_DATA

SD_TINY = PARITY_DATA / "sd_tiny_0" / "pipeline"
VOCABULARY = 523  # of its tokenizer


def write_pipeline(folder: Path, *, unet: dict, vae: dict, text: dict, seed: int = 0) -> Path:
    """A pipeline in diffusers' layout; every parameter, norms and biases too, is random."""
    torch.manual_seed(seed)
    networks: dict[str, nn.Module] = {
        "unet": UNet2DConditionModel(**unet),
        "vae": AutoencoderKL(**vae),
        "text_encoder": CLIPTextModel(CLIPTextConfig(vocab_size=VOCABULARY, **text)),
    }
    for name, network in networks.items():
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape)
        network.save_pretrained(folder / name)
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    shutil.copytree(SD_TINY / "tokenizer", folder / "tokenizer")
    return folder


def original_layout(folder: Path, layers_per_block: int) -> dict[str, torch.Tensor]:
    """The weights of a pipeline folder under the names of the original Stable Diffusion 2 code."""
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder" / "model.safetensors")
    levels = 1 + max(int(name.split(".")[2]) for name in vae if name.startswith("encoder.down_blocks."))
    return {
        **_unet({f"model.diffusion_model.{_unet_name(name, layers_per_block)}": value for name, value in unet.items()}),
        **{f"first_stage_model.{_vae_name(name, levels)}": _vae_value(name, value) for name, value in vae.items()},
        **{f"cond_stage_model.model.{name}": value for name, value in _open_clip(text).items()},
    }


def _replaced(name: str, pairs: dict[str, str]) -> str:
    for old, new in pairs.items():
        name = re.sub(old, new, name)
    return name


def _unet_name(name: str, layers: int) -> str:
    name = _replaced(
        name,
        {
            r"^time_embedding\.linear_1": "time_embed.0",
            r"^time_embedding\.linear_2": "time_embed.2",
            r"^conv_in": "input_blocks.0.0",
            r"^conv_norm_out": "out.0",
            r"^conv_out": "out.2",
        },
    )
    if ".resnets." in name:
        name = _replaced(
            name,
            {
                r"\.norm1\.": ".in_layers.0.",
                r"\.conv1\.": ".in_layers.2.",
                r"\.norm2\.": ".out_layers.0.",
                r"\.conv2\.": ".out_layers.3.",
                r"\.time_emb_proj\.": ".emb_layers.1.",
                r"\.conv_shortcut\.": ".skip_connection.",
            },
        )
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name):
        way, block, kind, place, rest = match.groups()
        first = int(block) * (layers + 1) + (1 if way == "down" else 0)
        prefix = "input_blocks" if way == "down" else "output_blocks"
        if kind == "downsamplers":
            return f"{prefix}.{first + layers}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"{prefix}.{first + layers}.UP.{rest}"
        return f"{prefix}.{first + int(place)}.{0 if kind == 'resnets' else 1}.{rest}"
    return _replaced(
        name,
        {
            r"^mid_block\.resnets\.0": "middle_block.0",
            r"^mid_block\.resnets\.1": "middle_block.2",
            r"^mid_block\.attentions\.0": "middle_block.1",
        },
    )


def _unet(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # an upsampler comes after the attention of its block, where it has one
    finished = {}
    for name, value in tensors.items():
        block = name.partition(".UP.")[0]
        place = 2 if f"{block}.1.proj_in.weight" in tensors else 1
        finished[name.replace(".UP.", f".{place}.")] = value
    return finished


def _vae_name(name: str, levels: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", name)
    return _replaced(
        name,
        {
            r"down_blocks\.": "down.",
            r"mid_block\.resnets\.0": "mid.block_1",
            r"mid_block\.resnets\.1": "mid.block_2",
            r"\.resnets\.": ".block.",
            r"downsamplers\.0": "downsample",
            r"upsamplers\.0": "upsample",
            r"conv_shortcut": "nin_shortcut",
            r"conv_norm_out": "norm_out",
            r"mid_block\.attentions\.0\.group_norm": "mid.attn_1.norm",
            r"mid_block\.attentions\.0\.to_out\.0": "mid.attn_1.proj_out",
            r"mid_block\.attentions\.0\.to_": "mid.attn_1.",
        },
    )


def _vae_value(name: str, value: torch.Tensor) -> torch.Tensor:
    # the original's attention is made of 1x1 convolutions
    return value[:, :, None, None] if ".attentions." in name and value.ndim == 2 else value


def _open_clip(text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    text = {name.removeprefix("text_model."): value for name, value in text.items()}
    width = text["embeddings.token_embedding.weight"].shape[1]
    tensors = {
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "ln_final.weight": text["final_layer_norm.weight"],
        "ln_final.bias": text["final_layer_norm.bias"],
        "text_projection": torch.eye(width),
        "logit_scale": torch.ones(()),
    }
    layers = 1 + max(int(name.split(".")[2]) for name in text if name.startswith("encoder.layers."))
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names["self_attn.out_proj"] = "attn.out_proj"
    for layer in range(layers + 1):  # one more than is used: the last is left out
        source, block = f"encoder.layers.{min(layer, layers - 1)}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for old, new in names.items():
                tensors[f"{block}{new}.{kind}"] = text[f"{source}{old}.{kind}"].clone()
            parts = [text[f"{source}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
    return tensors
