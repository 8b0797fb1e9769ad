"""Configs of networks from untrusted files: known keys with values in range.

A config names classes, repositories and sizes. Only the keys below reach a constructor, so that no file can make a
library fetch or import something, or build for hours. A key that is not listed here but changes the computation is an
error unless it has the library's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from propagate.errors import PropagateError, WeightsError

MODEL_REMEDY = "Name a Stable Diffusion 1 or 2 model."

Width = Annotated[int, Field(ge=1, le=1 << 15)]
Depth = Annotated[int, Field(ge=1, le=128)]  # of transformers; published ones have up to 48 blocks
_Groups = Annotated[int, Field(ge=1, le=1 << 12)]
_BlockLayers = Annotated[int, Field(ge=1, le=8)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
_Activation = Literal["silu", "swish", "mish", "gelu", "relu"]
_Beta = Annotated[float, Field(gt=0, lt=1)]
_T = TypeVar("_T")
_PerLevel = Annotated[list[_T], Field(min_length=1, max_length=8)]


_Activations = Literal["gelu", "quick_gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish"]
_Side = Annotated[int, Field(ge=1, le=1 << 14)]
_Sides = _Side | Annotated[list[_Side], Field(min_length=2, max_length=2)]
_Inner = Annotated[int, Field(ge=1, le=1 << 18)]
_Registers = Annotated[int, Field(ge=0, le=1024)]


class NetworkConfig(BaseModel):
    """Known keys of one network's config."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    class_name: ClassVar[str] = ""  # the network's class, where configs name one
    unused: ClassVar[tuple[str, ...]] = ()  # parameters of its constructor that do not change the features
    remedy: ClassVar[str] = "Fetch the file again, or name another model."


class UNetConfig(NetworkConfig):
    """`UNet2DConditionModel` of Stable Diffusion 1 and 2."""

    class_name: ClassVar[str] = "UNet2DConditionModel"
    unused: ClassVar[tuple[str, ...]] = ("sample_size", "dropout", "addition_embed_type_num_heads")
    remedy: ClassVar[str] = MODEL_REMEDY

    in_channels: Width = 4
    out_channels: Width = 4
    flip_sin_to_cos: bool = True
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    down_block_types: _PerLevel[Literal["CrossAttnDownBlock2D", "DownBlock2D"]]
    up_block_types: _PerLevel[Literal["CrossAttnUpBlock2D", "UpBlock2D"]]
    block_out_channels: _PerLevel[Width]
    layers_per_block: _BlockLayers | _PerLevel[_BlockLayers] = 2
    act_fn: _Activation = "silu"
    norm_num_groups: _Groups = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Width = 1280
    transformer_layers_per_block: _BlockLayers | _PerLevel[_BlockLayers] = 1
    attention_head_dim: Width | _PerLevel[Width] = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False
    time_cond_proj_dim: Width | None = None


class VaeConfig(NetworkConfig):
    """`AutoencoderKL` of Stable Diffusion 1 and 2."""

    class_name: ClassVar[str] = "AutoencoderKL"
    unused: ClassVar[tuple[str, ...]] = ("sample_size", "force_upcast")
    remedy: ClassVar[str] = MODEL_REMEDY

    in_channels: Literal[3] = 3
    out_channels: Width = 3
    down_block_types: _PerLevel[Literal["DownEncoderBlock2D"]]
    up_block_types: _PerLevel[Literal["UpDecoderBlock2D"]]
    block_out_channels: _PerLevel[Width]
    layers_per_block: _BlockLayers = 1
    act_fn: _Activation = "silu"
    latent_channels: Width = 4
    norm_num_groups: _Groups = 32
    scaling_factor: Annotated[float, Field(gt=0, le=1000)] = 0.18215
    mid_block_add_attention: bool = True


class AdmConfig(NetworkConfig):
    """`UNet2DModel` as `propagate models convert-adm` writes it."""

    class_name: ClassVar[str] = "UNet2DModel"
    unused: ClassVar[tuple[str, ...]] = ("sample_size", "dropout")
    remedy: ClassVar[str] = "Name a guided-diffusion U-Net, or a folder of `propagate models convert-adm`."

    in_channels: Literal[3] = 3
    out_channels: Width = 3
    down_block_types: _PerLevel[Literal["AttnDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"]]
    up_block_types: _PerLevel[Literal["AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D"]]
    block_out_channels: _PerLevel[Width]
    layers_per_block: _BlockLayers = 2
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    act_fn: _Activation = "silu"
    attention_head_dim: Width = 8
    norm_num_groups: _Groups = 32
    attn_norm_num_groups: _Groups | None = None
    norm_eps: Epsilon = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    time_embedding_dim: Annotated[int, Field(ge=4, le=1 << 17)]


class ScheduleConfig(NetworkConfig):
    """The noise schedule of a scheduler; all of diffusers' schedulers use the same names."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: _Beta = 0.0001
    beta_end: _Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: Annotated[list[_Beta], Field(min_length=1, max_length=100_000)] | None = None
    rescale_betas_zero_snr: bool = False


class TransformerConfig(NetworkConfig):
    """The keys that all of them share; missing keys have the library's defaults."""

    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Width = 12
    hidden_act: _Activations = "gelu"
    layer_norm_eps: Epsilon = 1e-6

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} does not divide hidden_size = {self.hidden_size}"
            )
        return self


class VisionConfig(TransformerConfig):
    """A vision transformer."""

    image_size: _Sides = 224
    patch_size: _Sides = 16
    num_channels: Literal[3] = 3

    @model_validator(mode="after")
    def _pictures_hold_patches(self) -> VisionConfig:
        sides, patch = (
            value if isinstance(value, list) else [value, value] for value in (self.image_size, self.patch_size)
        )
        if any(own < least for own, least in zip(sides, patch, strict=True)):
            raise ValueError(f"image_size = {self.image_size} is smaller than patch_size = {self.patch_size}")
        return self


class VitConfig(VisionConfig):
    """`ViTModel`: DINO."""

    intermediate_size: _Inner = 3072
    qkv_bias: bool = True


class DinoV2Config(VisionConfig):
    """`Dinov2Model`."""

    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | Annotated[int, Field(gt=0, le=64)] = 4
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False


class DinoV2RegistersConfig(DinoV2Config):
    """`Dinov2WithRegistersModel`."""

    num_register_tokens: _Registers = 4


class DinoV3Config(VisionConfig):
    """`DINOv3ViTModel`."""

    hidden_size: Width = 384
    num_attention_heads: Width = 6
    intermediate_size: _Inner = 1536
    rope_theta: Annotated[float, Field(gt=1, le=1e9)] = 100.0
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_gated_mlp: bool = False
    num_register_tokens: _Registers = 0

    @model_validator(mode="after")
    def _heads_rotate(self) -> DinoV3Config:
        if self.hidden_size // self.num_attention_heads % 4:
            raise ValueError("hidden_size / num_attention_heads is not a multiple of 4")
        return self


class ClipVisionConfig(VisionConfig):
    """`CLIPVisionModel`."""

    patch_size: _Sides = 32
    intermediate_size: _Inner = 3072


class ClipTextConfig(TransformerConfig):
    """`CLIPTextModel`."""

    remedy: ClassVar[str] = MODEL_REMEDY

    hidden_size: Width = 512
    num_attention_heads: Width = 8
    vocab_size: Annotated[int, Field(ge=3, le=1 << 22)] = 49408
    intermediate_size: _Inner = 2048
    max_position_embeddings: Annotated[int, Field(ge=2, le=4096)] = 77


def checked_config(
    kind: type[NetworkConfig], values: Any, source: object, network: type[Any] | None = None
) -> dict[str, Any]:
    """Validate a config and return the known keys that it sets.

    Args:
        kind: the expected config.
        values: content of the file.
        source: the file, for messages.
        network: class whose constructor takes the keys; its other parameters must have their defaults.

    Raises:
        WeightsError: another network's config, an invalid value, or an unsupported key.
    """
    if not isinstance(values, Mapping):
        raise WeightsError(f"{source} is not a JSON object.", kind.remedy)
    name = values.get("_class_name", kind.class_name)
    if kind.class_name and name != kind.class_name:
        raise WeightsError(f"{source}: the config is of a {name}, not of a {kind.class_name}.", kind.remedy)
    for key, parameter in inspect.signature(network).parameters.items() if network is not None else ():
        if key in values and key not in (*kind.model_fields, *kind.unused) and values[key] != parameter.default:
            raise WeightsError(
                f"{source} is of another architecture: {key} = {_shortened(repr(values[key]))} is not supported.",
                kind.remedy,
            )
    try:
        return kind.model_validate(dict(values)).model_dump(exclude_unset=True)
    except ValidationError as error:
        cause = error.errors()[0]
        given = "" if cause["type"] == "missing" else f" = {_shortened(repr(cause['input']))}"
        key = f"{cause['loc'][0]}{given}: " if cause["loc"] else ""
        raise WeightsError(f"{source}: {key}{cause['msg'].removeprefix('Value error, ')}.", kind.remedy) from error


@contextmanager
def building(
    source: object, name: str, remedy: str = "Fetch the files again, or name another model."
) -> Iterator[None]:
    """Turn any error of a library that builds or loads the network `name` from a file into a `WeightsError`."""
    try:
        yield
    except (PropagateError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cause = _shortened(" ".join(str(error).split()))
        raise WeightsError(f"{source} does not make a {name} ({type(error).__name__}: {cause}).", remedy) from error


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."
