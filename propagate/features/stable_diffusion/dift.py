"""`dift_sd`: DIFT's features of Stable Diffusion (Tang et al., NeurIPS 2023; Tsingularity/dift).

A picture's latents are noised to a timestep, the U-Net runs once on each of several draws of the noise as far as one
of its up blocks, and the block's output, averaged over the draws, is the feature. The reference encodes the picture
once per draw; here it is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from propagate.errors import UsageError
from propagate.features.device import resolve_device
from propagate.features.diffusion.core import Noise, NoiseMode, draws_at_once, ensemble_features
from propagate.features.option_types import Count, EnsembleSize, Multiple, Seed
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion, LatentMode, working_multiple
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.features.stable_diffusion.prompt_embedding import prompt_embedding
from propagate.weights.locating import Wanted, located

MODEL = "stable-diffusion-2-1"


class StableDiffusion:
    """DIFT features of Stable Diffusion 1 and 2; the defaults are DIFT's for DAVIS (its README).

    Args:
        weights: a pipeline's folder in diffusers' layout, a single checkpoint file (.safetensors, .ckpt) or a hub id;
            None: Stable Diffusion 2.1, from wherever it can be had.
        revision: of the hub's repository.
        config: for a checkpoint file: a folder with the model's configs and tokenizer; None: inferred from the file.
        timestep: how far the latents are noised; 0 .. 999.
        up_ft_index: up block whose output, after its upsampler, is taken. Stable Diffusion 2.1: 0: 1280 channels at
            stride 32, 1: 1280 at 16, 2: 640 at 8, 3: 320 at 8.
        finer_ft_index: a later up block of smaller cells that is kept for `propagation.finer`, which needs it; the
            latents' cells are the smallest, so that up_ft_index has to be 0 or 1. None: none.
        ensemble_size: draws of the noise whose features are averaged.
        prompt: text condition.
        latents: "mode" of the VAE's posterior, or a "sample" of it for every draw, as the reference does.
        noise: "shared", "fresh" or "antithetic", see `propagate.features.diffusion.core.Noise`.
        seed: of the noise.
        draws_per_pass: draws that go through the U-Net together; None: all of them on a GPU, one on a CPU. The
            features do not depend on it beyond rounding.
        multiple: both sides of the pictures become multiples of this; None: of the VAE's factor (8), the least
            possible. DIFT's script has 32.
        dtype: "float32" or, where the device computes in it, "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        compile: the network is given to `torch.compile`, see `propagate.features.device.compile_blocks`.

    Raises:
        UsageError: no such block, none that is finer, or no such timestep or multiple.
        WeightsError: the weights are missing, damaged or of another architecture.
    """

    @staticmethod
    def wanted_weights(
        *, weights: str | Path | None = None, revision: str | None = None, **_: Any
    ) -> tuple[Wanted, ...]:
        """The weights that these options need, in the order in which they are opened."""
        return (Wanted(MODEL, weights, revision),)

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        revision: str | None = None,
        config: Path | None = None,
        timestep: Annotated[int, Field(ge=0, le=9999)] = 51,
        up_ft_index: Annotated[int, Field(ge=0)] = 2,
        finer_ft_index: Annotated[int, Field(ge=0)] | None = None,
        ensemble_size: EnsembleSize = 8,
        prompt: str = "",
        latents: LatentMode = "mode",
        noise: NoiseMode = "shared",
        seed: Seed = 0,
        draws_per_pass: Count | None = None,
        multiple: Multiple | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        compile: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        files = open_pipeline(located(*self.wanted_weights(weights=weights, revision=revision)), config=config)
        if timestep >= len(files.alphas_cumprod):
            raise UsageError(
                f"features.timestep = {timestep}: the model's noise schedule has {len(files.alphas_cumprod)} steps.",
                f"Choose 0 to {len(files.alphas_cumprod) - 1}.",
            )
        self._model = LatentDiffusion(
            unet=files.unet,
            vae=files.vae,
            condition=prompt_embedding(prompt, files.text_encoder, files.unet.files),
            up_ft_index=up_ft_index,
            finer_ft_index=finer_ft_index,
            dtype=getattr(torch, dtype),
            device=self.device,
        )
        if compile:
            self._model.compile()
        self.stride, self.channels = self._model.blocks[up_ft_index]
        self.finer_stride, self.finer_channels = self._model.finer_stride, self._model.finer_channels
        self.multiple = working_multiple(multiple, self._model.factor)
        self.timestep, self.latents = timestep, latents
        self.noise = Noise(ensemble_size, seed, noise)
        self.draws_per_pass = draws_at_once(draws_per_pass, ensemble_size, self.device)
        self._kept = float(files.alphas_cumprod[timestep])

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of the VAE's factor."""
        return self._ensemble(images, indices, self._model.activation)

    @torch.no_grad()
    def with_finer(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """See `FinerExtractor`; only with a `finer_ft_index`."""
        return self._ensemble(images, indices, self._model.with_finer)

    def _ensemble(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None, activation: Callable[..., Tensor]
    ) -> Float[Tensor, "b d y x"]:
        return ensemble_features(
            self._model.latents(images, self.noise if self.latents == "sample" else None, indices),
            partial(activation, timestep=self.timestep),
            noise=self.noise,
            kept=self._kept,
            indices=indices,
            draws_per_pass=self.draws_per_pass,
        )
