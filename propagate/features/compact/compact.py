"""`compact`: the diffusion model shipped in the wheel, small enough for a CPU.

A `UNet2DModel` on space-to-depth pixels, trained to denoise and to match (`training/`; the model card is in
`propagate/models/compact`). Its features are DIFT's: the picture is noised to timestep t with seeded noise, and an up
block's activation is taken, averaged to one feature per 8 x 8 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial, reduce
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

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
from propagate.features.diffusion.core import Noise, NoiseMode, draws_at_once, ensemble_features, linear_alphas_cumprod
from propagate.features.extractor import Features, Images, Indices, check_sides
from propagate.features.finer import WithFiner, pack
from propagate.features.networks.configs import NetworkConfig, building, checked_config
from propagate.features.networks.loading import load_weights, read_config, read_tensors
from propagate.features.options import AutoDtype, Count, EnsembleSize, Seed
from propagate.features.passes import one_by_one
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
    """The key that other networks of this kind may change."""

    block_out_channels: Annotated[
        list[Annotated[int, Field(ge=16, le=4096, multiple_of=16)]], Field(min_length=4, max_length=4)
    ]


class CompactDiffusion(WithFiner):
    """DIFT features of the embedded model.

    Args:
        timestep: 0 .. 999; the matching was trained at 51.
        block: up block whose output, after its upsampler, is taken; 0: 256 channels at stride 16, 1: 128 at 8,
            2: 64 at 4 averaged to 8, 3: 32 at 4 averaged to 8. The finer map of 2 and 3 is what they average.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device computes in it, else float32.
        weights: folder with `config.json` and `model.safetensors`; None: the ones in the package.
        head: `head.safetensors` of these weights, or its folder: the features are then its mixture of several layers,
            at stride 8, with a pass per timestep of the head. `timestep` must be one of them and `block` the last that
            it reads, or a later one. The finer map stays the block's, averaged over the head's timesteps.

    See `propagate.features.options` for the other options.
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
        dtype: AutoDtype = "auto",
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
        self.networks = [network if t == timestep else folded(unet, t, block) for t in timesteps]
        for network in self.networks:
            network.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if compile:
                compile_blocks(network)
        # compiled code keeps the thread count of its compilation
        self.side_by_side = self.device.type == "cpu" and not compile
        self._alpha_bar = linear_alphas_cumprod()[list(timesteps)].tolist()

    def _features(self, images: Images, indices: Indices, *, finer: bool) -> Features:
        check_sides(images, self.multiple)
        mean = partial(self._mean, partial(self._activation, finer=finer))
        return one_by_one(mean, images.cpu(), indices) if self.side_by_side else mean(images, indices)

    def _mean(
        self,
        activation: Callable[[int, Float[Tensor, "n c h w"]], Float[Tensor, "n d y x"]],
        images: Images,
        indices: Indices,
    ) -> Features:
        clean = F.pixel_unshuffle(images.to(self.device) * 2 - 1, SPACE_TO_DEPTH)
        steps = (
            ensemble_features(
                clean,
                partial(activation, step),
                noise=self.noise,
                alpha_bar=alpha_bar,
                indices=indices,
                draws_per_pass=self.draws_per_pass,
            )
            for step, alpha_bar in enumerate(self._alpha_bar)
        )
        return reduce(torch.add, steps)

    def _activation(self, step: int, noisy: Float[Tensor, "b c h w"], *, finer: bool) -> Float[Tensor, "b d y x"]:
        """Return the features, or their share at one timestep of the head; with `finer` packed with the block's map."""
        noisy = noisy.to(self.dtype).contiguous(memory_format=torch.channels_last)
        block, layers = f"up_blocks.{self.block}", () if self._head is None else self._head.config.layers
        outputs = self.networks[step](noisy, (*layers, block), averaged=self.block >= 2 and not finer)
        own: Tensor = outputs[block]
        if self._head is None:
            return pack(F.avg_pool2d(own.float(), 2), own.float()) if finer else own
        grid = (noisy.shape[-2] * SPACE_TO_DEPTH // STRIDE, noisy.shape[-1] * SPACE_TO_DEPTH // STRIDE)
        share = self._head.share(step, outputs, grid)
        return pack(share, own.float() / len(self.networks)) if finer else share


def load_unet(folder: Path) -> UNet2DModel:
    """Load the model of a folder with `config.json` and `model.safetensors`, in float32, in evaluation mode."""
    remedy = "Reinstall dift-propagate, or name a folder with config.json and model.safetensors (features.weights)."
    source = folder / "config.json"
    if not source.exists():
        raise WeightsError(f"The compact model's weights are not in {folder}.", remedy)
    config = read_config(source).get("unet") or {}
    checked = checked_config(_Config, config, f"{source}: unet")
    if config | {"block_out_channels": None} != json.loads(json.dumps(UNET_CONFIG | {"block_out_channels": None})):
        raise WeightsError(
            f"{folder} does not hold the compact model: config.json describes another network, and only "
            "block_out_channels may differ.",
            remedy,
        )
    with building(folder, "compact model", remedy):
        with torch.device("meta"):
            unet = UNet2DModel(**{**UNET_CONFIG, **checked})
        load_weights(unet, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    return unet
