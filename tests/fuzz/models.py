"""Tiny models with random weights in every layout that the extractors read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from propagate.features.compact.compact import UNET_CONFIG
from propagate.features.compact.head import CompactHead, HeadConfig, save_head
from propagate.features.learned_prompts.prompt_file import LearnedPrompts
from propagate.features.networks.local_files import fingerprint
from tests.features.adm.guided_diffusion import Options, random_state
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY, original_layout, write_pipeline

_DATA = SD_TINY.parents[1]
_GUIDED = Options(multipliers=(1, 2), res_blocks=1, attention=(2,), head_channels=32)
_UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": (1, 1),
    "use_linear_projection": True,
}
_VAE = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
}
_TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "max_position_embeddings": 16,
    "hidden_act": "gelu",
}


def pipeline(folder: Path) -> Path:
    """Write a Stable Diffusion in diffusers' layout and return its folder."""
    return write_pipeline(folder, unet=_UNET, vae=_VAE, text=_TEXT)


def models(folder: Path) -> Iterator[tuple[str, Path, list[str], dict[str, Any]]]:
    """Write the models below a folder.

    Yields:
        Name, folder of the case, patterns of the files to damage, and the options of the extractor, whose paths are
        relative to the folder of the case.
    """
    for name, source, extractor in (
        ("dino", "dino_hf", "dino"),
        ("dinov2", "dinov2_hf", "dinov2"),
        ("registers", "dinov2_reg_hf", "dinov2"),
        ("dinov3", "dinov3_hf", "dinov3"),
        ("openclip", "clip_hf", "openclip"),
    ):
        model = folder / name / "model"
        shutil.copytree(_DATA / "vit_tiny_0" / source, model)
        colors = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143], "size": {"height": 224}}
        (model / "preprocessor_config.json").write_text(json.dumps(colors), encoding="utf-8")
        yield name, folder / name, ["model", "model/*", "model/*.json"], {"name": extractor, "weights": "model"}
    yield from _compact(folder)
    yield from _diffusion(folder)
    place = folder / "dino_checkpoint"
    place.mkdir()
    shutil.copyfile(_DATA / "vit_tiny_0" / "dino_original_state_dict.pth", place / "dino.pth")
    options: dict[str, Any] = {"name": "dino", "weights": "dino.pth", "head_channels": 16}
    yield "dino_checkpoint", place, ["dino.pth"], options


def _compact(folder: Path) -> Iterator[tuple[str, Path, list[str], dict[str, Any]]]:
    torch.manual_seed(0)
    config = {**UNET_CONFIG, "block_out_channels": (16, 16, 32, 32)}
    for name in ("compact", "head"):
        model = folder / name / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"unet": config}), encoding="utf-8")
        save_file(UNet2DModel(**config).state_dict(), model / "model.safetensors")
    yield "compact", folder / "compact", ["model", "model/*"], {"name": "compact", "weights": "model"}
    layers = {"up_blocks.1": 32, "up_blocks.2": 16}
    about = {"layers": layers, "timesteps": (51,), "projection": 24, "norm_groups": 2}
    save_head(CompactHead(HeadConfig.model_validate(about)), folder / "head" / "model" / "head.safetensors")
    options = {"name": "compact", "weights": "model", "head": "model/head.safetensors"}
    yield "head", folder / "head", ["model/head.safetensors"], options


def _diffusion(folder: Path) -> Iterator[tuple[str, Path, list[str], dict[str, Any]]]:
    small = pipeline(folder / "pipeline" / "model")
    short = {"ensemble_size": 1}
    files = ["model", "model/*", "model/*/*", "model/*/*.json", "model/*/*.txt"]
    yield "pipeline", small.parent, files, {"name": "dift_sd", "weights": "model", "up_ft_index": 0, **short}
    place = folder / "single"
    place.mkdir()
    save_file(
        {name: value.contiguous() for name, value in original_layout(small, 1).items()}, place / "model.safetensors"
    )
    yield (
        "single",
        place,
        ["*.safetensors"],
        {"name": "dift_sd", "weights": "model.safetensors", "up_ft_index": 0, **short},
    )
    shutil.copytree(SD_TINY, folder / "cleandift" / "base")
    unet = load_file(SD_TINY / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(unet, folder / "cleandift" / "unet.safetensors")
    options: dict[str, Any] = {"name": "cleandift", "weights": "unet.safetensors", "base": "base"}
    yield "cleandift", folder / "cleandift", ["unet.safetensors", "base/*/*.json"], options
    place = folder / "hyperfeatures"
    shutil.copytree(SD_TINY, place / "model")
    aggregator = _DATA / "hyperfeatures_tiny_0" / "aggregation_network_sd_tiny.pt"
    shutil.copyfile(aggregator, place / "aggregator.pt")
    yield "hyperfeatures", place, ["*.pt"], {"name": "hyperfeatures", "weights": "model", "aggregator": "aggregator.pt"}
    place = folder / "adm"
    place.mkdir()
    torch.save(random_state(_GUIDED), place / "adm.pt")
    yield (
        "adm",
        place,
        ["adm.pt"],
        {"name": "dift_adm", "weights": "adm.pt", "head_channels": 32, "up_ft_index": 1, **short},
    )
    yield from _converted(folder, place / "adm.pt")
    yield from _prompts(folder, small)


def _converted(folder: Path, checkpoint: Path) -> Iterator[tuple[str, Path, list[str], dict[str, Any]]]:
    from propagate.features.adm.checkpoint import convert_checkpoint

    place = folder / "adm_folder"
    place.mkdir()
    convert_checkpoint(checkpoint, place / "model", 32)
    options = {"name": "dift_adm", "weights": "model", "up_ft_index": 1, "ensemble_size": 1}
    yield "adm_folder", place, ["model", "model/*", "model/*.json"], options


def _prompts(folder: Path, pipeline: Path) -> Iterator[tuple[str, Path, list[str], dict[str, Any]]]:
    place = folder / "prompts"
    shutil.copytree(pipeline, place / "model")
    unet = (place / "model" / "unet" / "diffusion_pytorch_model.safetensors",)
    embeddings = {name: torch.randn(1, 16, 64) for name in ("1", "2")}
    learned = LearnedPrompts(
        embeddings, fingerprint(unet), {"seed": 0, "layers": [[1, 0]]}, dict.fromkeys(embeddings, ((0.5,),))
    )
    learned.save(place / "prompt.safetensors")
    options = {"name": "prompt_attention", "weights": "model", "layers": [[1, 0]], "embedding": "prompt.safetensors"}
    yield "prompts", place, ["prompt.safetensors"], options
