"""`dift_sd`: DIFT's features of Stable Diffusion (Tang et al., NeurIPS 2023; Tsingularity/dift).

A picture's latents are noised to a timestep, the U-Net runs on several noise draws up to one of its up blocks, and the
block's output is averaged over the draws. The picture is encoded once; the reference encodes it once per draw.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from propagate.features.device import resolve_device
from propagate.features.diffusion.core import Noise, NoiseMode, draws_at_once, ensemble_features
from propagate.features.extractor import Features, Images, Indices
from propagate.features.finer import WithFiner
from propagate.features.options import Count, Dtype, EnsembleSize, Index, Multiple, Seed, Timestep, Weights
from propagate.features.stable_diffusion.latent_diffusion import STABLE_DIFFUSION_2, LatentExtractor, LatentMode
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.weights.locating import located


class StableDiffusion(WithFiner, LatentExtractor):
    """DIFT features of Stable Diffusion 1 and 2; the defaults are DIFT's for DAVIS (its README).

    Args:
        weights: a pipeline's folder in diffusers' layout, a single checkpoint file (.safetensors, .ckpt) or a hub id;
            None: Stable Diffusion 2.1.
        config: for a checkpoint file: a folder with the model's configs and tokenizer; None: inferred from the file.
        timestep: how far the latents are noised; 0 .. 999.
        up_ft_index: up block whose output, after its upsampler, is taken. Stable Diffusion 2.1: 0: 1280 channels at
            stride 32, 1: 1280 at 16, 2: 640 at 8, 3: 320 at 8.
        multiple: the default is the VAE's factor (8); DIFT's script has 32.

    See `propagate.features.options` for the other options.
    """

    model_name = STABLE_DIFFUSION_2

    def __init__(
        self,
        *,
        weights: Weights = None,
        revision: str | None = None,
        config: Path | None = None,
        timestep: Timestep = 51,
        up_ft_index: Index = 2,
        finer_ft_index: Index | None = None,
        ensemble_size: EnsembleSize = 8,
        prompt: str = "",
        latents: LatentMode = "mode",
        noise: NoiseMode = "shared",
        seed: Seed = 0,
        draws_per_pass: Count | None = None,
        multiple: Multiple | None = None,
        dtype: Dtype = "float32",
        device: str = "auto",
        compile: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        files = open_pipeline(located(*self.wanted_weights(weights=weights, revision=revision)), config=config)
        self._alpha_bar = files.alpha_bar(timestep)
        self._build(files, up_ft_index, finer_ft_index, prompt=prompt, multiple=multiple, dtype=dtype, compile=compile)
        self.timestep, self.latents = timestep, latents
        self.noise = Noise(ensemble_size, seed, noise)
        self.draws_per_pass = draws_at_once(draws_per_pass, ensemble_size, self.device)

    def _features(self, images: Images, indices: Indices, *, finer: bool) -> Features:
        return ensemble_features(
            self.model.latents(images, self.noise if self.latents == "sample" else None, indices),
            partial(self.model.activation, timestep=self.timestep, finer=finer),
            noise=self.noise,
            alpha_bar=self._alpha_bar,
            indices=indices,
            draws_per_pass=self.draws_per_pass,
        )
