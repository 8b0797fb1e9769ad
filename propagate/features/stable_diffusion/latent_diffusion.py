"""The base of Stable Diffusion's extractors and their networks: the VAE's encoder, the U-Net up to the tapped block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from propagate.errors import WeightsError
from propagate.features.device import compile_blocks
from propagate.features.diffusion.core import Noise
from propagate.features.extractor import Images, Indices, check_sides
from propagate.features.finer import Block, check_blocks, tap_outputs
from propagate.features.networks.configs import MODEL_REMEDY, building
from propagate.features.networks.loading import Component, assign, check_fits, memory_format
from propagate.features.options import Weights, working_multiple
from propagate.features.stable_diffusion.pipeline_files import PipelineFiles
from propagate.features.stable_diffusion.prompt_embedding import prompt_embedding
from propagate.weights.locating import Wanted

LatentMode = Literal["mode", "sample"]
STABLE_DIFFUSION_1, STABLE_DIFFUSION_2 = "stable-diffusion-1-5", "stable-diffusion-2-1"

# offset of the posterior's seed, beyond seed + index; generators take 32 bits of a seed
POSTERIOR_SEED = 1 << 31
# names of the VAE's attention in files from before diffusers 0.16
_OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class LatentDiffusion:
    """Encodes pictures to latents, and latents to an up block's features. Later blocks are dropped.

    Args:
        unet, vae: the networks.
        condition: (1, tokens, width) embedding of the prompt.
        up_ft_index, finer_ft_index: the up block to take, and a later one of smaller cells, if any.
        whole: keep the later blocks, for `output`.
        dtype, device: dtype and device of weights and computation.

    Attributes:
        blocks: all up blocks of the U-Net.
        finer_stride, finer_channels: see `FinerExtractor`.
        factor: pixels per latent; both sides of a picture must be multiples of it.
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
        self.dtype, self.device, self.up_ft_index = dtype, device, up_ft_index
        self.unet, self.vae = _build(UNet2DConditionModel, unet), _build(AutoencoderKL, vae)
        self.factor = 2 ** sum(block.downsamplers is not None for block in self.vae.encoder.down_blocks)
        self.blocks = _up_blocks(self.unet, self.factor)
        finer = check_blocks(self.blocks, up_ft_index, finer_ft_index)
        self.finer_stride = finer.stride if finer else None
        self.finer_channels = (finer or self.blocks[up_ft_index]).channels
        self._last = up_ft_index if finer_ft_index is None else finer_ft_index
        config, latent_channels = self.unet.config, self.vae.config.latent_channels
        if config.in_channels != latent_channels:
            raise WeightsError(
                f"The U-Net takes {config.in_channels} channels, the VAE gives {latent_channels}.",
                "Inpainting, depth and upscaling models cannot be used; name a text-to-image model.",
            )
        if config.cross_attention_dim != condition.shape[-1]:
            raise WeightsError(
                f"The U-Net is conditioned on {config.cross_attention_dim} channels, the text encoder gives "
                f"{condition.shape[-1]}.",
                "Text encoder and U-Net have to be of the same model.",
            )
        tensors = {_current_name(name): value for name, value in vae.read().items()}
        check_fits(self.vae, tensors, vae.files[0])
        del self.vae.decoder, self.vae.post_quant_conv
        assign(self.vae, tensors, dtype, device)
        tensors = unet.read()
        check_fits(self.unet, tensors, unet.files[0])
        if not whole:
            for later in range(self._last + 1, len(self.blocks)):
                # the number of blocks stays: the U-Net uses it to forward sizes that are not multiples of 8
                self.unet.up_blocks[later] = nn.Identity()
            del self.unet.conv_norm_out, self.unet.conv_act, self.unet.conv_out
        assign(self.unet, tensors, dtype, device)
        self.condition = condition.to(device, dtype)

    def latents(
        self, images: Images, samples: Noise | None = None, indices: Indices = None
    ) -> Float[Tensor, "b c y x"] | Float[Tensor, "e b c y x"]:
        """Return scaled latents, float32, from one pass of the encoder.

        They are the posterior's mode, or with `samples` a sample of it for each draw of this ensemble.
        """
        check_sides(images, self.factor)
        pixels = _arranged(images.to(self.device, torch.float32) * 2 - 1, self.dtype)
        posterior = self.vae.encode(pixels).latent_dist
        latents: Tensor = posterior.mean.float()
        if samples is not None:
            own = replace(samples, seed=samples.seed + POSTERIOR_SEED)
            draws = own.draw_frames(tuple(latents.shape[1:]), len(latents), indices)
            latents = latents + posterior.std.float() * draws.to(latents)
        return latents * float(self.vae.config.scaling_factor)

    @property
    def decoder(self) -> list[Any]:
        """The U-Net's up blocks up to the tapped one."""
        return list(self.unet.up_blocks[: self.up_ft_index + 1])

    def checkpoint_gradients(self) -> None:
        """Recompute the U-Net's activations for gradients instead of storing them."""
        self.unet.enable_gradient_checkpointing()

    def compile(self) -> None:
        """Apply `torch.compile` to the encoder and the U-Net."""
        compile_blocks(self.vae.encoder)
        compile_blocks(self.unet, self.unet.up_blocks[self.up_ft_index], self.unet.up_blocks[self._last])

    def activation(
        self, latents: Float[Tensor, "b c y x"], timestep: float, *, finer: bool = False
    ) -> Float[Tensor, "b d v u"]:
        """Return the tapped block's output, with `finer` packed with that of the finer block."""
        blocks = self.unet.up_blocks
        finer_tap = blocks[self._last] if finer else None
        return tap_outputs(blocks[self.up_ft_index], finer_tap, lambda: self.output(latents, timestep))

    def output(
        self, latents: Float[Tensor, "b c y x"], timestep: float, condition: Float[Tensor, "_ n d"] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """Return the prediction of the whole U-Net, float32; only with `whole`.

        `condition` is one embedding for all latents, or one for each; None: the prompt's.
        """
        # a tensor: diffusers would otherwise choose a dtype, and float16 cannot hold timesteps like 261.3
        timesteps = torch.full((len(latents),), timestep, dtype=torch.float32, device=self.device)
        given = self.condition if condition is None else condition.to(self.device, self.dtype)
        sample = _arranged(latents.to(self.device), self.dtype)
        predicted: Tensor = self.unet(sample, timesteps, given.expand(len(latents), -1, -1)).sample
        return predicted.float()


def _up_blocks(unet: UNet2DConditionModel, factor: int) -> tuple[Block, ...]:
    """Return the up blocks of a U-Net on latents of `factor` pixels."""
    stride = factor * 2 ** sum(block.downsamplers is not None for block in unet.down_blocks)
    blocks = []
    for block in unet.up_blocks:
        stride //= 2 if block.upsamplers is not None else 1
        blocks.append(Block(stride, int(block.resnets[-1].out_channels)))
    return tuple(blocks)


def _build(network: type[Any], component: Component) -> Any:
    remedy = f"{MODEL_REMEDY} For a checkpoint file name a folder with its configs in features.config."
    with building(component.source, network.__name__, remedy), torch.device("meta"):
        return network(**component.config)


def _current_name(name: str) -> str:
    *path, module, leaf = name.split(".")
    if "attentions" in path:
        module = _OLD_ATTENTION_NAMES.get(module, module)
    return ".".join([*path, module, leaf])


def _arranged(tensor: Float[Tensor, "b c h w"], dtype: torch.dtype) -> Float[Tensor, "b c h w"]:
    return tensor.to(dtype).contiguous(memory_format=memory_format(dtype))


class LatentExtractor:
    """Declares the weights of a Stable Diffusion model and builds its networks."""

    model_name: ClassVar[str] = STABLE_DIFFUSION_1  # the default weights
    device: torch.device

    @classmethod
    def wanted_weights(cls, *, weights: Weights = None, revision: str | None = None, **_: Any) -> tuple[Wanted, ...]:
        """Return the weights that these options need, in the order in which they are opened."""
        return (Wanted(cls.model_name, weights, revision),)

    def _build(
        self,
        files: PipelineFiles,
        up_ft_index: int,
        finer_ft_index: int | None = None,
        *,
        prompt: str,
        multiple: int | None,
        dtype: str,
        compile: bool = False,
        whole: bool = False,
    ) -> None:
        """Build the networks of a pipeline; the arguments are those of `LatentDiffusion` and common options."""
        self.model = LatentDiffusion(
            unet=files.unet,
            vae=files.vae,
            condition=prompt_embedding(prompt, files.text_encoder, files.unet.files),
            up_ft_index=up_ft_index,
            finer_ft_index=finer_ft_index,
            whole=whole,
            dtype=getattr(torch, dtype),
            device=self.device,
        )
        if compile:
            self.model.compile()
        self.stride, self.channels = self.model.blocks[up_ft_index]
        self.finer_stride, self.finer_channels = self.model.finer_stride, self.model.finer_channels
        self.multiple = working_multiple(multiple, self.model.factor)
