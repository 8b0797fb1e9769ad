"""A Stable Diffusion pipeline on the disk: a folder in diffusers' layout, or one checkpoint file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from propagate.errors import WeightsError
from propagate.features.networks.configs import UNetConfig, VaeConfig, checked_config
from propagate.features.networks.loading import Component, folder_component, read_config, weight_files
from propagate.features.networks.transformer_configs import ClipTextConfig
from propagate.features.stable_diffusion.prompt_embedding import TextEncoder
from propagate.features.stable_diffusion.single_file import CheckpointFile, read_schedule


@dataclass(frozen=True)
class PipelineFiles:
    """What a Stable Diffusion pipeline consists of, none of it loaded.

    Attributes:
        unet, vae: the two networks.
        text_encoder: of the prompt; None where the folder has none (an embedding kept from an earlier run will do).
        alphas_cumprod: (T,) float32, the share of the clean latents' variance kept at each timestep.
    """

    unet: Component
    vae: Component
    text_encoder: TextEncoder | None
    alphas_cumprod: Float[Tensor, " t"]


def open_pipeline(path: Path, *, config: Path | None = None, unet_weights: bool = True) -> PipelineFiles:
    """The pipeline at a path.

    Args:
        path: folder with `unet`, `vae`, `scheduler` and, for new prompts, `text_encoder` and `tokenizer`; or a
            .safetensors or .ckpt file in the layout of the original Stable Diffusion code.
        config: for a single file, a folder whose configs (and tokenizer) hold; None: they are inferred.
        unet_weights: False: only the U-Net's config has to be there.

    Raises:
        WeightsError: something is missing, damaged or of another architecture.
    """
    if path.is_file():
        checkpoint = CheckpointFile(path, config)
        return PipelineFiles(
            checkpoint.component("unet"), checkpoint.component("vae"), checkpoint.text_encoder(), checkpoint.schedule()
        )
    if not (path / "unet").is_dir():
        raise WeightsError(
            f"{path} is not a Stable Diffusion pipeline: it has no unet folder.",
            "Name a folder in diffusers' layout (unet, vae, text_encoder, tokenizer, scheduler) or a checkpoint file.",
        )
    return PipelineFiles(
        _unet(path / "unet") if unet_weights else _unet_config(path / "unet" / "config.json"),
        folder_component(path / "vae", VaeConfig, AutoencoderKL),
        _text_encoder(path),
        read_schedule(path / "scheduler" / "scheduler_config.json"),
    )


def _unet(folder: Path) -> Component:
    return folder_component(folder, UNetConfig, UNet2DConditionModel)


def _unet_config(path: Path) -> Component:
    """The U-Net without weights."""
    return Component(checked_config(UNetConfig, read_config(path), path, UNet2DConditionModel), path, (), dict)


def _text_encoder(folder: Path) -> TextEncoder | None:
    if not weight_files(folder / "text_encoder"):
        return None
    return TextEncoder(folder_component(folder / "text_encoder", ClipTextConfig), folder / "tokenizer")
