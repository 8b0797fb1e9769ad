"""`cleandift`: features of CleanDIFT's U-Net (Stracke et al., CVPR 2025; CompVis/cleandift), from clean latents.

Stable Diffusion 2.1's U-Net, fine-tuned so that it gives on clean pictures what the original gives on noised ones: one
pass, no noise, no ensemble. Everything but the U-Net's weights is Stable Diffusion's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from propagate.features.device import resolve_device
from propagate.features.diffusion.core import Noise
from propagate.features.networks.loading import read_tensors
from propagate.features.option_types import Multiple, Seed
from propagate.features.stable_diffusion.dift import MODEL as BASE_MODEL
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion, LatentMode, working_multiple
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.features.stable_diffusion.prompt_embedding import prompt_embedding
from propagate.weights.locating import Wanted, located

MODEL = "cleandift"
# where the learned timestep starts, and with the published learning rate stays (PROTOCOLS: CleanDIFT)
TIMESTEP = 261.0
# of the fine-tuned U-Net's names in the published file of the whole training, which has the timestep as well
_IN_FULL = "unet_feature_extractor_cleandift."


class CleanDIFT:
    """CleanDIFT features.

    Args:
        weights: the fine-tuned U-Net's state dict (`cleandift_sd21_unet.safetensors`), the file of the whole training
            that holds it (`cleandift_sd21_full.safetensors`), or a hub id; None: the published U-Net, from wherever it
            can be had.
        revision: of the hub's repository of the weights.
        base: the Stable Diffusion 2.1 it belongs to, as `weights` of `dift_sd`; its own U-Net's weights are not needed.
        timestep: what the U-Net is told; not cut to an integer. None: the learned one, where the file of the whole
            training is named, else 261.
        up_ft_index: up block whose output, after its upsampler, is taken; 0, 1, 2 are the keys us3, us6, us9 of
            CleanDIFT's code.
        finer_ft_index: a later up block of smaller cells that is kept for `propagation.finer`, which needs it; the
            latents' cells are the smallest, so that up_ft_index has to be 0 or 1. None: none.
        prompt: text condition.
        latents: "mode" of the VAE's posterior or a "sample" of it, the same for every frame, as the reference does.
        seed: of that sample.
        multiple: as in `dift_sd`.
        dtype: "float32" or, where the device computes in it, "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        compile: the network is given to `torch.compile`, see `propagate.features.device.compile_blocks`.

    Raises:
        UsageError: no such block, none that is finer, or no such multiple.
        WeightsError: the weights are missing, damaged or of another architecture.
    """

    @staticmethod
    def wanted_weights(
        *,
        base: str | Path | None = None,
        weights: str | Path | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> tuple[Wanted, ...]:
        """The weights that these options need: the base model's, then the U-Net's."""
        return Wanted(BASE_MODEL, base), Wanted(MODEL, weights, revision)

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        revision: str | None = None,
        base: str | Path | None = None,
        timestep: Annotated[float, Field(ge=0, le=999)] | None = None,
        up_ft_index: Annotated[int, Field(ge=0)] = 2,
        finer_ft_index: Annotated[int, Field(ge=0)] | None = None,
        prompt: str = "",
        latents: LatentMode = "mode",
        seed: Seed = 0,
        multiple: Multiple | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        compile: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        model, fine_tuned = self.wanted_weights(base=base, weights=weights, revision=revision)
        files = open_pipeline(located(model), unet_weights=False)
        own = located(fine_tuned)
        self._model = LatentDiffusion(
            unet=replace(files.unet, files=(own,), read=lambda: _fine_tuned(own)),
            vae=files.vae,
            condition=prompt_embedding(prompt, files.text_encoder, (own,)),
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
        self.timestep = _learned_timestep(own) if timestep is None else timestep
        self._posterior_noise = Noise(seed=seed) if latents == "sample" else None

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of the VAE's factor."""
        return self._model.activation(self._latents(images, indices), self.timestep).float()

    @torch.no_grad()
    def with_finer(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """See `FinerExtractor`; only with a `finer_ft_index`."""
        return self._model.with_finer(self._latents(images, indices), self.timestep)

    def _latents(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None) -> Float[Tensor, "b c y x"]:
        return self._model.latents(images, self._posterior_noise, indices).flatten(0, -4)


def _fine_tuned(path: Path) -> dict[str, Tensor]:
    """The U-Net of either file; of the whole training all else (the original U-Net, the VAE, adapters) is left."""
    tensors = read_tensors(path)
    own = {name.removeprefix(_IN_FULL): value for name, value in tensors.items() if name.startswith(_IN_FULL)}
    return own or tensors


def _learned_timestep(path: Path) -> float:
    learned = read_tensors(path).get("timestep")
    return TIMESTEP if learned is None else float(learned)
