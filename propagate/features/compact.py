"""`compact`: the diffusion model shipped in the wheel, small enough for a CPU.

A `UNet2DModel` on space-to-depth pixels, trained to denoise and to match (`training/`; the model card lies beside the
weights in `propagate/models/compact`). Its features are DIFT's: the picture is noised to timestep t with seeded noise
and an up block's activation is taken, averaged to one feature per 8 x 8 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from jaxtyping import Float, Int
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from propagate.errors import WeightsError
from propagate.features.device import resolve_device, resolve_dtype
from propagate.features.diffusion import (
    Noise,
    NoiseMode,
    draws_at_once,
    ensemble_features,
    linear_alphas_cumprod,
    run_until,
)

SPACE_TO_DEPTH = 4
TRAINING_TIMESTEP = 51
UNET_CONFIG: dict[str, Any] = {
    "in_channels": 3 * SPACE_TO_DEPTH**2,
    "out_channels": 3 * SPACE_TO_DEPTH**2,
    "block_out_channels": (64, 128, 192, 256),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D",) * 4,
    "up_block_types": ("UpBlock2D",) * 4,
    "norm_num_groups": 16,
    "resnet_time_scale_shift": "scale_shift",
    "add_attention": False,
}


class CompactDiffusion:
    """DIFT features of the embedded model.

    Args:
        timestep: 0 .. 999; the matching was trained at 51.
        block: up block whose output, after its upsampler, is taken; 0: 256 channels at stride 16, 1: 192 at 8,
            2: 128 at 4 averaged to 8, 3: 64 at 4 averaged to 8.
        ensemble_size: draws of the noise whose features are averaged.
        noise: "shared", "fresh" or "antithetic", see `propagate.features.diffusion.Noise`.
        seed: of the noise.
        draws_per_pass: draws that go through the network together; None: all of them on a GPU, one on a CPU. The
            features do not depend on it beyond rounding.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device computes in it, else float32.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        weights: folder with `config.json` and `model.safetensors`; None: the ones in the package.

    Raises:
        WeightsError: the weights are missing or do not belong to this network.
    """

    def __init__(
        self,
        *,
        timestep: Annotated[int, Field(ge=0, le=999)] = TRAINING_TIMESTEP,
        block: Annotated[int, Field(ge=0, le=3)] = 2,
        ensemble_size: Annotated[int, Field(ge=1)] = 1,
        noise: NoiseMode = "shared",
        seed: int = 0,
        draws_per_pass: Annotated[int, Field(ge=1)] | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
        weights: Path | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.timestep, self.block = timestep, block
        self.noise = Noise(ensemble_size, seed, noise)
        self.draws_per_pass = draws_at_once(draws_per_pass, ensemble_size, self.device)
        self.stride = 16 if block == 0 else 8
        self.multiple = SPACE_TO_DEPTH * 8
        self._unet = _load(Path(str(weights or resources.files("propagate") / "models" / "compact")))
        # not diffusers' own `to`: it warns of casting even where there is nothing to warn of
        nn.Module.to(self._unet, self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = int(self._unet.config.block_out_channels[::-1][block])
        self._kept = float(linear_alphas_cumprod()[timestep])

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of 32."""
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"sides must be multiples of {self.multiple}, not {tuple(images.shape[-2:])}")
        clean = F.pixel_unshuffle(images.to(self.device) * 2 - 1, SPACE_TO_DEPTH)
        return ensemble_features(
            clean,
            self._activation,
            noise=self.noise,
            kept=self._kept,
            indices=indices,
            draws_per_pass=self.draws_per_pass,
        )

    def _activation(self, noisy: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d y x"]:
        noisy = noisy.to(self.dtype).contiguous(memory_format=torch.channels_last)
        timesteps = torch.full((len(noisy),), self.timestep, device=self.device)
        if self.block == 2:
            return pooled_block(self._unet, self.block, noisy, timesteps)
        features = run_until(self._unet.up_blocks[self.block], lambda: self._unet(noisy, timesteps))
        return F.avg_pool2d(features, 2) if self.block == 3 else features


def _load(folder: Path) -> UNet2DModel:
    remedy = "Reinstall dift-propagate, or name a folder with config.json and model.safetensors (features.weights)."
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        unet = UNet2DModel(**config["unet"])
        unet.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    except FileNotFoundError as error:
        raise WeightsError(f"The compact model's weights are not in {folder}.", remedy) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{folder} does not hold the compact model ({error}).", remedy) from error
    return unet.eval().requires_grad_(False)


def pooled_block(
    unet: UNet2DModel, block: int, noisy: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
) -> Float[Tensor, "b d h2 w2"]:
    """Up block `block`'s output after its upsampler, averaged over 2 x 2 cells, without computing the fine cells.

    Nearest upsampling, a 3x3 convolution and 2x2 averaging are linear, and together they are one 3x3 convolution on
    the coarse grid, at a quarter of the multiplications (`fold_upsampler`).
    """
    stage = unet.up_blocks[block]
    hidden = run_until(stage.resnets[-1], lambda: unet(noisy, timesteps))
    convolution = stage.upsamplers[0].conv
    return F.conv2d(hidden, fold_upsampler(convolution.weight), convolution.bias, padding=1)


def fold_upsampler(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 3 3"]:
    """The 3x3 kernel that equals nearest 2x upsampling, the given 3x3 kernel (zero padding) and 2x2 averaging.

    Along one axis the even fine cell reads coarse cells (-1, 0, 0) with the kernel's three taps and the odd one
    (0, 0, 1); their mean weighs cell -1 by w0/2, cell 0 by (w0 + 2 w1 + w2)/2 and cell 1 by w2/2.
    """
    fold = weight.new_tensor([[0.5, 0.0, 0.0], [0.5, 1.0, 0.5], [0.0, 0.0, 0.5]])
    return torch.einsum("yp,xq,oipq->oiyx", fold, fold, weight)
