"""`cleandift`: features of CleanDIFT's U-Net (Stracke et al., CVPR 2025; CompVis/cleandift), from clean latents.

Stable Diffusion 2.1's U-Net, fine-tuned so that clean pictures give the features of noised ones: one pass, no noise, no
ensemble. All but the U-Net's weights is Stable Diffusion's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from propagate.features.device import resolve_device
from propagate.features.diffusion.core import Noise
from propagate.features.extractor import Features, Images, Indices
from propagate.features.finer import WithFiner
from propagate.features.networks.loading import read_tensors
from propagate.features.options import Dtype, Index, Multiple, Seed, Weights
from propagate.features.stable_diffusion.latent_diffusion import STABLE_DIFFUSION_2, LatentExtractor, LatentMode
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.weights.locating import Wanted, located

# initial value of the learned timestep, which the published learning rate leaves there (PROTOCOLS: CleanDIFT)
TIMESTEP = 261.0
# prefix of the fine-tuned U-Net in the published file of the whole training, which also holds the timestep
_IN_FULL = "unet_feature_extractor_cleandift."


class CleanDIFT(WithFiner, LatentExtractor):
    """CleanDIFT features.

    Args:
        weights: the fine-tuned U-Net's state dict (`cleandift_sd21_unet.safetensors`), the file of the whole training
            that contains it (`cleandift_sd21_full.safetensors`), or a hub id; None: the published U-Net.
        base: its Stable Diffusion 2.1, as `weights` of `dift_sd`; that U-Net's weights are not needed.
        timestep: timestep passed to the U-Net; not cut to an integer. None: the learned one, where the file of the
            whole training is named, else 261.
        up_ft_index: up block whose output, after its upsampler, is taken; 0, 1, 2 are the keys us3, us6, us9 of
            CleanDIFT's code.
        latents: "mode" of the VAE's posterior or a "sample" of it, the same for every frame, as the reference does.
        seed: seed of that sample.

    See `propagate.features.options` for the other options.
    """

    @classmethod
    def wanted_weights(
        cls, *, base: Weights = None, weights: Weights = None, revision: str | None = None, **_: Any
    ) -> tuple[Wanted, ...]:
        """Return the base model's weights, then the U-Net's."""
        return Wanted(STABLE_DIFFUSION_2, base), Wanted("cleandift", weights, revision)

    def __init__(
        self,
        *,
        weights: Weights = None,
        revision: str | None = None,
        base: Weights = None,
        timestep: Annotated[float, Field(ge=0, le=999)] | None = None,
        up_ft_index: Index = 2,
        finer_ft_index: Index | None = None,
        prompt: str = "",
        latents: LatentMode = "mode",
        seed: Seed = 0,
        multiple: Multiple | None = None,
        dtype: Dtype = "float32",
        device: str = "auto",
        compile: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        model, fine_tuned = self.wanted_weights(base=base, weights=weights, revision=revision)
        files = open_pipeline(located(model), unet_weights=False)
        own = located(fine_tuned)
        files = replace(files, unet=replace(files.unet, files=(own,), read=lambda: _fine_tuned(own)))
        self._build(files, up_ft_index, finer_ft_index, prompt=prompt, multiple=multiple, dtype=dtype, compile=compile)
        self.timestep = float(read_tensors(own).get("timestep", TIMESTEP)) if timestep is None else timestep
        self._posterior_noise = Noise(seed=seed) if latents == "sample" else None

    def _features(self, images: Images, indices: Indices, *, finer: bool) -> Features:
        latents = self.model.latents(images, self._posterior_noise, indices).flatten(0, -4)
        return self.model.activation(latents, self.timestep, finer=finer).float()


def _fine_tuned(path: Path) -> dict[str, Tensor]:
    """Read the U-Net of either file, without the original U-Net, the VAE and the adapters of the whole training."""
    tensors = read_tensors(path)
    own = {name.removeprefix(_IN_FULL): value for name, value in tensors.items() if name.startswith(_IN_FULL)}
    return own or tensors
