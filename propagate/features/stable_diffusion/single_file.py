"""Stable Diffusion 1 and 2 from one checkpoint file, in the layout of the original (CompVis, Stability) code.

diffusers converts the names. Its own `from_single_file` asks the hub for the configs; here they are inferred from the
tensors, or come from a folder. The original code gives what tensors do not show: 32 groups in every norm, 64 channels
per head in Stable Diffusion 2 and 8 heads in 1, the noise schedule, the penultimate layer of OpenCLIP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils as converters
from jaxtyping import Float
from torch import Tensor

from propagate.errors import WeightsError
from propagate.features.networks import configs
from propagate.features.networks.loading import Component, read_config, read_tensors
from propagate.features.stable_diffusion.prompt_embedding import TextEncoder

UNET, VAE = "model.diffusion_model.", "first_stage_model."
OPEN_CLIP, CLIP = "cond_stage_model.model.", "cond_stage_model.transformer.text_model."
HEAD_CHANNELS = 64
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


class CheckpointFile:
    """One file with U-Net, VAE and text encoder: .safetensors, or a pickle (.ckpt) of tensors only.

    Args:
        path: the file.
        config: folder with the model's configs in diffusers' layout; None: inferred.
    """

    def __init__(self, path: Path, config: Path | None = None) -> None:
        self.path, self.config = path, config
        self.tensors = read_tensors(path)
        remedy = "Name a checkpoint of Stable Diffusion 2.1 (U-Net, VAE and text encoder), or a pipeline folder."
        if any(name.startswith(("conditioner.", f"{UNET}label_emb.")) for name in self.tensors):
            raise WeightsError(f"{path} is of another architecture (SDXL, or conditioned on classes).", remedy)
        for prefix, part in ((f"{UNET}input_blocks.0.0.", "U-Net"), (f"{VAE}encoder.conv_in.", "VAE")):
            if f"{prefix}weight" not in self.tensors:
                raise WeightsError(f"{path} has no {part} of a Stable Diffusion checkpoint.", remedy)

    def component(self, name: Literal["unet", "vae"]) -> Component:
        """Return the U-Net or the VAE."""
        kind, network, infer, convert, prefix = _NETWORKS[name]
        config, source = self._config(name, infer, kind, network)
        own = {key: value for key, value in self.tensors.items() if key.startswith(prefix)}
        return Component(config, source, (self.path,), lambda: self._converted(convert, own, config=config))

    def text_encoder(self) -> TextEncoder | None:
        """Return the text encoder; None if the file has none."""
        tokenizer = self.config / "tokenizer" if self.config is not None else None
        if f"{OPEN_CLIP}token_embedding.weight" in self.tensors:
            text, source = self._config("text_encoder", _open_clip_config, configs.ClipTextConfig)
            component = Component(text, source, (self.path,), lambda: self._open_clip(text))
            return TextEncoder(component, tokenizer, padding=0)
        if f"{CLIP}embeddings.token_embedding.weight" in self.tensors:
            text, source = self._config("text_encoder", _clip_config, configs.ClipTextConfig)
            read = partial(self._converted, converters.convert_ldm_clip_checkpoint, self.tensors)
            return TextEncoder(Component(text, source, (self.path,), read), tokenizer)
        return None

    def schedule(self) -> Float[Tensor, " t"]:
        """Return alphas_cumprod of the config's folder, or else that of Stable Diffusion 1 and 2 (1000 steps)."""
        if self.config is not None and (place := self.config / "scheduler" / "scheduler_config.json").exists():
            return read_schedule(place)
        alphas_cumprod: Tensor = DDIMScheduler(**SCHEDULE).alphas_cumprod
        return alphas_cumprod

    def _config(
        self, name: str, infer: Any, kind: type[configs.NetworkConfig], network: type[Any] | None = None
    ) -> tuple[dict[str, Any], Path]:
        """Return the config of a part and its file."""
        if self.config is None:
            remedy = "Use the pipeline's folder, or name one with its configs in features.config."
            with configs.building(self.path, "Stable Diffusion model", remedy):
                inferred = infer(self.tensors)
            return configs.checked_config(kind, inferred, self.path, network), self.path
        source = self.config / name / "config.json"
        return configs.checked_config(kind, read_config(source), source, network), source

    def _converted(self, convert: Any, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        with configs.building(self.path, "Stable Diffusion model"):
            return dict(convert(*arguments, **options))

    def _open_clip(self, config: Mapping[str, Any]) -> dict[str, Tensor]:
        known = configs.ClipTextConfig(**config)
        blocks = f"{OPEN_CLIP}transformer.resblocks."
        later = re.compile(rf"{re.escape(blocks)}(\d+)\.")
        used = {
            name: value
            for name, value in self.tensors.items()
            if (block := later.match(name)) is None or int(block[1]) < known.num_hidden_layers
        }
        model = SimpleNamespace(config=SimpleNamespace(hidden_size=known.hidden_size))
        return self._converted(converters.convert_open_clip_checkpoint, model, used, prefix=OPEN_CLIP)


def read_schedule(path: Path) -> Float[Tensor, " t"]:
    """Return alphas_cumprod (T,) float32 of a scheduler config, or raise a WeightsError."""
    config = configs.checked_config(configs.ScheduleConfig, read_config(path), path)
    with configs.building(path, "noise schedule"):
        alphas_cumprod: Tensor = DDIMScheduler(**config).alphas_cumprod
    if not bool(((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all()):
        raise WeightsError(f"{path} does not make a noise schedule: it leaves the range 0 to 1.", "Fetch it again.")
    return alphas_cumprod


def _unet_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the U-Net's config from its tensors."""
    shapes = {name.removeprefix(UNET): value.shape for name, value in tensors.items() if name.startswith(UNET)}
    downsamplers = sorted(int(name.split(".")[1]) for name in shapes if name.endswith(".0.op.weight"))
    inputs = _count(shapes, "input_blocks.")
    per_level = downsamplers[0] if downsamplers else inputs
    layers, levels = per_level - 1, len(downsamplers) + 1
    firsts = [1 + level * per_level for level in range(levels)]
    channels = [shapes[f"input_blocks.{first}.0.out_layers.3.weight"][0] for first in firsts]
    attends = [f"input_blocks.{first}.1.proj_in.weight" in shapes for first in firsts]
    attends_up = [f"output_blocks.{level * per_level}.1.proj_in.weight" in shapes for level in range(levels)]
    middle = "middle_block.1."
    linear = len(shapes[f"{middle}proj_in.weight"]) == 2
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in attends_up],
        "transformer_layers_per_block": _count(shapes, f"{middle}transformer_blocks."),
        "cross_attention_dim": shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": linear,
        # a count of heads, in spite of its name
        "attention_head_dim": [max(count // HEAD_CHANNELS, 1) for count in channels] if linear else 8,
    }


def _vae_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the VAE's config from its tensors."""
    shapes = {name.removeprefix(VAE): value.shape for name, value in tensors.items() if name.startswith(VAE)}
    levels = _count(shapes, "encoder.down.")
    channels = [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": _count(shapes, "encoder.down.0.block."),
        "latent_channels": shapes["quant_conv.weight"][0] // 2,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _open_clip_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the config of Stable Diffusion 2's text encoder: OpenCLIP without its last layer."""
    shapes = {name.removeprefix(OPEN_CLIP): value.shape for name, value in tensors.items()}
    blocks = "transformer.resblocks."
    stored = _count(shapes, blocks)
    # files that were converted back from diffusers lack the last of ViT-H's 24 layers
    layers = 23 if stored in (23, 24) else stored - 1
    config = _clip_sizes(shapes, "token_embedding.weight", f"{blocks}0.mlp.c_fc.weight", "positional_embedding")
    return {**config, "num_hidden_layers": layers, "hidden_act": "gelu"}


def _clip_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the config of Stable Diffusion 1's text encoder: OpenAI's CLIP."""
    shapes = {name.removeprefix(CLIP): value.shape for name, value in tensors.items()}
    tokens, positions = (f"embeddings.{kind}_embedding.weight" for kind in ("token", "position"))
    config = _clip_sizes(shapes, tokens, "encoder.layers.0.mlp.fc1.weight", positions)
    return {**config, "num_hidden_layers": _count(shapes, "encoder.layers."), "hidden_act": "quick_gelu"}


def _clip_sizes(shapes: Mapping[str, Any], tokens: str, inner: str, positions: str) -> dict[str, Any]:
    vocabulary, width = shapes[tokens]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[inner][0],
        "max_position_embeddings": shapes[positions][0],
        "num_attention_heads": max(width // HEAD_CHANNELS, 1),
    }


def _count(shapes: Mapping[str, Any], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


_NETWORKS: dict[str, tuple[type[configs.NetworkConfig], type[Any], Any, Any, str]] = {
    "unet": (configs.UNetConfig, UNet2DConditionModel, _unet_config, converters.convert_ldm_unet_checkpoint, UNET),
    "vae": (configs.VaeConfig, AutoencoderKL, _vae_config, converters.convert_ldm_vae_checkpoint, VAE),
}
