"""What Stable Diffusion's extractors share: the VAE's encoder and the U-Net as far as the tapped block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from propagate.errors import UsageError, WeightsError
from propagate.features.device import compile_blocks
from propagate.features.diffusion.core import Noise, run_until
from propagate.features.finer import check_finer, run_until_finer
from propagate.features.networks.configs import MODEL_REMEDY, building
from propagate.features.networks.loading import Component, assign, check_fits, memory_format

LatentMode = Literal["mode", "sample"]

# the posterior's own stream of noise, out of the way of seed + index; generators take 32 bits of a seed
POSTERIOR_SEED = 1 << 31
# of the VAE's attention in files from before diffusers 0.16
_OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class UpBlock(NamedTuple):
    """One place to take features: an up block's output, after its upsampler.

    Attributes:
        stride: pixels of the picture per cell.
        channels: of a feature.
    """

    stride: int
    channels: int


class LatentDiffusion:
    """Pictures to latents, latents to an up block's features. What comes after the block is not kept in memory.

    Args:
        unet, vae: the networks; their shapes come from their configs.
        condition: (1, tokens, width) the prompt's embedding.
        up_ft_index: the up block to take.
        finer_ft_index: a later one of smaller cells, to take with it; None: none.
        whole: keep what comes after the block, too, for `output`.
        dtype, device: of weights and computation.

    Attributes:
        blocks: all up blocks of the U-Net.
        finer_stride, finer_channels: see `FinerExtractor`.
        factor: pixels per latent, to which both sides of a picture have to fit.

    Raises:
        UsageError: there is no such up block, or it is not finer.
        WeightsError: configs, weights and condition do not fit together.
    """

    def __init__(
        self,
        *,
        unet: Component,
        vae: Component,
        condition: Float[Tensor, "1 n d"],
        up_ft_index: int,
        finer_ft_index: int | None = None,
        whole: bool = False,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.dtype, self.device, self.up_ft_index, self._whole = dtype, device, up_ft_index, whole
        self._unet, self._vae = _build(UNet2DConditionModel, unet), _build(AutoencoderKL, vae)
        self.factor = 2 ** sum(block.downsamplers is not None for block in self._vae.encoder.down_blocks)
        self.blocks = up_blocks(self._unet, self.factor)
        if up_ft_index >= len(self.blocks):
            places = [f"{i}: stride {b.stride}, {b.channels} channels" for i, b in enumerate(self.blocks)]
            raise UsageError(
                f"features.up_ft_index = {up_ft_index}: there is no such up block.", f"There are {'; '.join(places)}."
            )
        self.finer_stride = check_finer(up_ft_index, finer_ft_index, [block.stride for block in self.blocks])
        self._last = up_ft_index if finer_ft_index is None else finer_ft_index
        self.finer_channels = self.blocks[self._last].channels
        self._check(condition)
        self._load_vae(vae)
        self._load_unet(unet)
        self._condition = condition.to(device, dtype)

    def latents(
        self, images: Float[Tensor, "b 3 h w"], samples: Noise | None = None, indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"] | Float[Tensor, "e b c y x"]:
        """Scaled latents, float32, from one pass of the encoder.

        Args:
            images: in [0, 1]; both sides multiples of `factor`.
            samples: None: the posterior's mode. Else a sample of the posterior for each of an ensemble's draws; its
                draws are others than those of this noise itself.
            indices: frame indices, for fresh noise.
        """
        if images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            raise ValueError(f"sides must be multiples of {self.factor}, not {tuple(images.shape[-2:])}")
        pixels = _arranged(images.to(self.device, torch.float32) * 2 - 1, self.dtype)
        posterior = self._vae.encode(pixels).latent_dist
        latents: Tensor = posterior.mean.float()
        if samples is not None:
            own = replace(samples, seed=samples.seed + POSTERIOR_SEED)
            draws = own.draw_frames(tuple(latents.shape[1:]), len(latents), indices)
            latents = latents + posterior.std.float() * draws.to(latents)
        return latents * float(self._vae.config.scaling_factor)

    @property
    def decoder(self) -> list[Any]:
        """The U-Net's up blocks as far as the tapped one, to look at what they compute on the way."""
        return list(self._unet.up_blocks[: self.up_ft_index + 1])

    def checkpoint_gradients(self) -> None:
        """Where gradients are wanted, compute the U-Net's activations once more for them instead of keeping them."""
        self._unet.enable_gradient_checkpointing()

    def compile(self) -> None:
        """Give the encoder and the U-Net to `torch.compile`."""
        compile_blocks(self._vae.encoder)
        compile_blocks(self._unet, self._unet.up_blocks[self.up_ft_index], self._unet.up_blocks[self._last])

    def activation(self, latents: Float[Tensor, "b c y x"], timestep: float) -> Float[Tensor, "b d v u"]:
        """The tapped block's output. The timestep may lie between two steps (it is not cut to an integer)."""
        return run_until(self._unet.up_blocks[self.up_ft_index], lambda: self.output(latents, timestep))

    def with_finer(self, latents: Float[Tensor, "b c y x"], timestep: float) -> Float[Tensor, "b e v u"]:
        """The outputs of the tapped block and of the finer one, packed (`propagate.features.finer.pack`)."""
        taps = self._unet.up_blocks[self.up_ft_index], self._unet.up_blocks[self._last]
        return run_until_finer(*taps, lambda: self.output(latents, timestep))

    def output(
        self, latents: Float[Tensor, "b c y x"], timestep: float, condition: Float[Tensor, "_ n d"] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """What the U-Net as a whole predicts, float32; only where it was kept whole.

        Args:
            latents: noised.
            timestep: as for `activation`.
            condition: of each of the latents, or one for all; None: the prompt's.
        """
        # a tensor: diffusers would otherwise choose a dtype, and float16 has no room for timesteps like 261.3
        timesteps = torch.full((len(latents),), timestep, dtype=torch.float32, device=self.device)
        given = self._condition if condition is None else condition.to(self.device, self.dtype)
        sample = _arranged(latents.to(self.device), self.dtype)
        predicted: Tensor = self._unet(sample, timesteps, given.expand(len(latents), -1, -1)).sample
        return predicted.float()

    def _check(self, condition: Float[Tensor, "1 n d"]) -> None:
        config = self._unet.config
        if config.in_channels != self._vae.config.latent_channels:
            raise WeightsError(
                f"The U-Net takes {config.in_channels} channels, the VAE gives {self._vae.config.latent_channels}.",
                "Inpainting, depth and upscaling models cannot be used; name a text-to-image model.",
            )
        if config.cross_attention_dim != condition.shape[-1]:
            raise WeightsError(
                f"The U-Net is conditioned on {config.cross_attention_dim} channels, the text encoder gives "
                f"{condition.shape[-1]}.",
                "Text encoder and U-Net have to be of the same model.",
            )

    def _load_vae(self, component: Component) -> None:
        tensors = {_current_name(name): value for name, value in component.read().items()}
        check_fits(self._vae, tensors, _source(component))
        del self._vae.decoder, self._vae.post_quant_conv
        assign(self._vae, tensors, self.dtype, self.device)

    def _load_unet(self, component: Component) -> None:
        tensors = component.read()
        check_fits(self._unet, tensors, _source(component))
        if not self._whole:
            for later in range(self._last + 1, len(self.blocks)):
                # the number of blocks stays: the U-Net decides by it where it forwards sizes that are no multiples of 8
                self._unet.up_blocks[later] = nn.Identity()
            del self._unet.conv_norm_out, self._unet.conv_act, self._unet.conv_out
        assign(self._unet, tensors, self.dtype, self.device)


def up_blocks(unet: UNet2DConditionModel, factor: int) -> tuple[UpBlock, ...]:
    """The up blocks of a U-Net on latents of `factor` pixels."""
    stride = factor * 2 ** sum(block.downsamplers is not None for block in unet.down_blocks)
    blocks = []
    for block in unet.up_blocks:
        stride //= 2 if block.upsamplers is not None else 1
        blocks.append(UpBlock(stride, int(block.resnets[-1].out_channels)))
    return tuple(blocks)


def working_multiple(multiple: int | None, factor: int) -> int:
    """What an extractor's pictures have to be multiples of: the VAE's factor, or an option that is a multiple of it.

    Raises:
        UsageError: it is not.
    """
    if (multiple or factor) % factor:
        raise UsageError(
            f"features.multiple = {multiple}: the model takes multiples of {factor} pixels.",
            f"Choose a multiple of {factor}; DIFT's script has 32.",
        )
    return multiple or factor


def _build(network: type[Any], component: Component) -> Any:
    remedy = f"{MODEL_REMEDY} For a checkpoint file name a folder with its configs in features.config."
    with building(component.source, network.__name__, remedy), torch.device("meta"):
        return network(**component.config)


def _source(component: Component) -> str:
    return str(component.files[0]) if component.files else "the given tensors"


def _current_name(name: str) -> str:
    *path, module, leaf = name.split(".")
    if "attentions" in path:
        module = _OLD_ATTENTION_NAMES.get(module, module)
    return ".".join([*path, module, leaf])


def _arranged(tensor: Float[Tensor, "b c h w"], dtype: torch.dtype) -> Float[Tensor, "b c h w"]:
    return tensor.to(dtype).contiguous(memory_format=memory_format(dtype))
