"""A Stable Diffusion pipeline on disk: a folder in diffusers' layout, or one checkpoint file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from propagate.errors import UsageError, WeightsError
from propagate.features.networks.configs import ClipTextConfig, UNetConfig, VaeConfig, checked_config
from propagate.features.networks.loading import Component, folder_component, read_config, weight_files
from propagate.features.stable_diffusion.prompt_embedding import TextEncoder
from propagate.features.stable_diffusion.single_file import CheckpointFile, read_schedule


@dataclass(frozen=True)
class PipelineFiles:
    """The parts of a Stable Diffusion pipeline, not loaded."""

    unet: Component
    vae: Component
    text_encoder: TextEncoder | None  # None: missing; a cached embedding will do
    alphas_cumprod: Float[Tensor, " t"]  # float32, share of the clean latents' variance at each timestep

    def alpha_bar(self, timestep: int, option: str = "timestep") -> float:
        """Return alphas_cumprod at the timestep of an option, or raise a UsageError if there are fewer steps."""
        steps = len(self.alphas_cumprod)
        if timestep >= steps:
            raise UsageError(
                f"features.{option} = {timestep}: the model's noise schedule has {steps} steps.",
                f"Choose 0 to {steps - 1}.",
            )
        return float(self.alphas_cumprod[timestep])


def open_pipeline(path: Path, *, config: Path | None = None, unet_weights: bool = True) -> PipelineFiles:
    """Open the pipeline at a path.

    Args:
        path: folder with `unet`, `vae`, `scheduler` and, for new prompts, `text_encoder` and `tokenizer`; or a
            .safetensors or .ckpt file in the layout of the original Stable Diffusion code.
        config: for a single file: a folder with configs and tokenizer; None: inferred.
        unet_weights: False: require only the U-Net's config.

    Raises:
        WeightsError: something is missing, damaged or of another architecture.
    """
    if path.is_file():
        checkpoint = CheckpointFile(path, config)
        return PipelineFiles(
            checkpoint.component("unet"), checkpoint.component("vae"), checkpoint.text_encoder(), checkpoint.schedule()
        )
    unet, text = path / "unet", path / "text_encoder"
    if not unet.is_dir():
        raise WeightsError(
            f"{path} is not a Stable Diffusion pipeline: it has no unet folder.",
            "Name a folder in diffusers' layout (unet, vae, text_encoder, tokenizer, scheduler) or a checkpoint file.",
        )
    if unet_weights:
        network = folder_component(unet, UNetConfig, UNet2DConditionModel)
    else:
        source = unet / "config.json"
        known = checked_config(UNetConfig, read_config(source), source, UNet2DConditionModel)
        network = Component(known, source, (), dict)
    encoder = TextEncoder(folder_component(text, ClipTextConfig), path / "tokenizer") if weight_files(text) else None
    vae = folder_component(path / "vae", VaeConfig, AutoencoderKL)
    return PipelineFiles(network, vae, encoder, read_schedule(path / "scheduler" / "scheduler_config.json"))
