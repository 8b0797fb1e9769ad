"""`compact`: the diffusion model shipped in the wheel, small enough for a CPU.

A `UNet2DModel` on space-to-depth pixels, trained to denoise and to match (`training/`; the model card lies beside the
weights in `propagate/models/compact`). Its features are DIFT's: the picture is noised to timestep t with seeded noise
and an up block's activation is taken, averaged to one feature per 8 x 8 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial, reduce
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from propagate.errors import WeightsError
from propagate.features.compact.head import STRIDE, load_head
from propagate.features.compact.network import CompactNetwork
from propagate.features.device import compile_blocks, resolve_device, resolve_dtype
from propagate.features.diffusion.core import (
    Noise,
    NoiseMode,
    draws_at_once,
    ensemble_features,
    linear_alphas_cumprod,
)
from propagate.features.finer import pack
from propagate.features.networks.configs import NetworkConfig, building, checked_config
from propagate.features.networks.loading import check_fits, read_config, read_tensors
from propagate.features.option_types import Count, EnsembleSize, Seed
from propagate.features.side_by_side import one_by_one
from propagate.threads import on_one_thread

SPACE_TO_DEPTH = 4
TRAINING_TIMESTEP = 51
UNET_CONFIG: dict[str, Any] = {
    "in_channels": 3 * SPACE_TO_DEPTH**2,
    "out_channels": 3 * SPACE_TO_DEPTH**2,
    "block_out_channels": (32, 64, 128, 256),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D",) * 4,
    "up_block_types": ("UpBlock2D",) * 4,
    "norm_num_groups": 16,
    "resnet_time_scale_shift": "scale_shift",
    "add_attention": False,
}


class _Config(NetworkConfig):
    """What may differ in the config of another network of this kind."""

    block_out_channels: Annotated[
        list[Annotated[int, Field(ge=16, le=4096, multiple_of=16)]], Field(min_length=4, max_length=4)
    ]


class CompactDiffusion:
    """DIFT features of the embedded model.

    Args:
        timestep: 0 .. 999; the matching was trained at 51.
        block: up block whose output, after its upsampler, is taken; 0: 256 channels at stride 16, 1: 128 at 8,
            2: 64 at 4 averaged to 8, 3: 32 at 4 averaged to 8. What 2 and 3 average is their finer map.
        ensemble_size: draws of the noise whose features are averaged.
        noise: "shared", "fresh" or "antithetic", see `propagate.features.diffusion.core.Noise`.
        seed: of the noise.
        draws_per_pass: draws that go through the network together; None: all of them on a GPU, one on a CPU. The
            features do not depend on it beyond rounding.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device computes in it, else float32.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        compile: the network is given to `torch.compile`, see `propagate.features.device.compile_blocks`.
        weights: folder with `config.json` and `model.safetensors`; None: the ones in the package.
        head: `head.safetensors` of these weights, or its folder: the features are then its mixture of several layers,
            at stride 8, with a pass per timestep of the head. `timestep` has to be one of them and `block` the last
            that it reads, or a later one. The finer map stays the block's, its mean over the head's timesteps.

    Raises:
        UsageError: the head reads a later block, or other timesteps.
        WeightsError: the weights or the head are missing or do not belong to this network.
    """

    def __init__(
        self,
        *,
        timestep: Annotated[int, Field(ge=0, le=999)] = TRAINING_TIMESTEP,
        block: Annotated[int, Field(ge=0, le=3)] = 2,
        ensemble_size: EnsembleSize = 1,
        noise: NoiseMode = "shared",
        seed: Seed = 0,
        draws_per_pass: Count | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
        compile: bool = False,
        weights: Path | None = None,
        head: Path | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.timestep, self.block = timestep, block
        self.noise = Noise(ensemble_size, seed, noise)
        self.draws_per_pass = draws_at_once(draws_per_pass, ensemble_size, self.device)
        self.stride = 16 if block == 0 and head is None else STRIDE
        self.multiple = SPACE_TO_DEPTH * 8
        unet = load_unet(Path(str(weights or resources.files("propagate") / "models" / "compact")))
        folded = on_one_thread(CompactNetwork)  # its weights are products
        network = folded(unet, timestep, block)
        self.channels = self.finer_channels = network.layers[f"up_blocks.{block}"]
        self.finer_stride = SPACE_TO_DEPTH if block >= 2 else None
        self._head = None if head is None else load_head(head, network.layers, timestep)
        timesteps: tuple[int, ...] = (timestep,)
        if self._head is not None:
            self.channels, timesteps = self._head.config.projection, self._head.config.timesteps
            self._head.to(self.device, self.dtype)
        self._networks = [network if t == timestep else folded(unet, t, block) for t in timesteps]
        for network in self._networks:
            network.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if compile:
                compile_blocks(network)
        # compiled code takes the threads that there were when it was compiled
        self.side_by_side = self.device.type == "cpu" and not compile
        self._kept = linear_alphas_cumprod()[list(timesteps)].tolist()

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of 32."""
        return self._ensemble(images, indices, self._coarse)

    @torch.no_grad()
    def with_finer(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """See `FinerExtractor`; blocks 2 and 3 alone have a finer map."""
        return self._ensemble(images, indices, self._both)

    def _ensemble(
        self,
        images: Float[Tensor, "b 3 h w"],
        indices: Sequence[int] | None,
        activation: Callable[[int, Float[Tensor, "n c h w"]], Float[Tensor, "n d y x"]],
    ) -> Float[Tensor, "b d y x"]:
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"sides must be multiples of {self.multiple}, not {tuple(images.shape[-2:])}")
        if self.side_by_side:
            return one_by_one(partial(self._mean, activation), images.cpu(), indices)
        return self._mean(activation, images, indices)

    def _mean(
        self,
        activation: Callable[[int, Float[Tensor, "n c h w"]], Float[Tensor, "n d y x"]],
        images: Float[Tensor, "b 3 h w"],
        indices: Sequence[int] | None,
    ) -> Float[Tensor, "b d y x"]:
        clean = F.pixel_unshuffle(images.to(self.device) * 2 - 1, SPACE_TO_DEPTH)
        steps = (
            ensemble_features(
                clean,
                partial(activation, step),
                noise=self.noise,
                kept=kept,
                indices=indices,
                draws_per_pass=self.draws_per_pass,
            )
            for step, kept in enumerate(self._kept)
        )
        return reduce(torch.add, steps)

    def _coarse(self, step: int, noisy: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d y x"]:
        return self._outputs(step, noisy, averaged=self.block >= 2)[0]

    def _both(self, step: int, noisy: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e y x"]:
        coarse, finer = self._outputs(step, noisy, averaged=False)
        finer = finer.float()
        if self._head is None:
            return pack(F.avg_pool2d(finer, 2), finer)
        return pack(coarse, finer / len(self._networks))

    def _outputs(
        self, step: int, noisy: Float[Tensor, "b c h w"], *, averaged: bool
    ) -> tuple[Float[Tensor, "b d y x"], Float[Tensor, "b e v u"]]:
        """The features, or their share at one timestep, and the block's output."""
        noisy = noisy.to(self.dtype).contiguous(memory_format=torch.channels_last)
        network, block = self._networks[step], f"up_blocks.{self.block}"
        if self._head is None:
            output: Tensor = network(noisy, (block,), averaged=averaged)[block]
            return output, output
        outputs = network(noisy, (*self._head.config.layers, block), averaged=averaged)
        grid = (noisy.shape[-2] * SPACE_TO_DEPTH // STRIDE, noisy.shape[-1] * SPACE_TO_DEPTH // STRIDE)
        return self._head.share(step, outputs, grid), outputs[block]


def _as_json(config: dict[str, Any]) -> Any:
    return json.loads(json.dumps(config))


def load_unet(folder: Path) -> UNet2DModel:
    """The model of a folder with `config.json` and `model.safetensors`, in float32, in evaluation mode.

    Raises:
        WeightsError: it is missing, damaged or another network.
    """
    remedy = "Reinstall dift-propagate, or name a folder with config.json and model.safetensors (features.weights)."
    source = folder / "config.json"
    if not source.exists():
        raise WeightsError(f"The compact model's weights are not in {folder}.", remedy)
    config = read_config(source).get("unet") or {}
    checked = checked_config(_Config, config, f"{source}: unet")
    if {**config, "block_out_channels": None} != {**_as_json(UNET_CONFIG), "block_out_channels": None}:
        raise WeightsError(
            f"{folder} does not hold the compact model: config.json describes another network, and only "
            "block_out_channels may differ.",
            remedy,
        )
    with building(folder, "compact model", remedy):
        with torch.device("meta"):
            unet = UNet2DModel(**{**UNET_CONFIG, **checked})
        tensors = read_tensors(folder / "model.safetensors")
        check_fits(unet, tensors, str(folder / "model.safetensors"))
        unet.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return unet.eval().requires_grad_(False)
