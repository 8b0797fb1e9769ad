"""Configs of networks, which come from other people's files: known keys with values in range, and nothing else.

A config names classes, repositories and sizes. Only the keys below reach a constructor, so that no value of a file can
make a library fetch or import something, or build for hours. A key that would change what is computed, and that is not
here, is an error where it is not at the library's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from propagate.errors import PropagateError, WeightsError

MODEL_REMEDY = "Name a Stable Diffusion 1 or 2 model."

Width = Annotated[int, Field(ge=1, le=1 << 15)]
Depth = Annotated[int, Field(ge=1, le=128)]  # transformers; the deepest published vision transformers have 48
_Groups = Annotated[int, Field(ge=1, le=1 << 12)]
_BlockLayers = Annotated[int, Field(ge=1, le=8)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
_Activation = Literal["silu", "swish", "mish", "gelu", "relu"]
_Beta = Annotated[float, Field(gt=0, lt=1)]
_T = TypeVar("_T")
_PerLevel = Annotated[list[_T], Field(min_length=1, max_length=8)]


class NetworkConfig(BaseModel):
    """Known keys of one network's config.

    Attributes:
        class_name: of the network, where a config names one.
        unused: parameters of its constructor that do not change what is computed here.
        remedy: for a config of another architecture.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    class_name: ClassVar[str] = ""
    unused: ClassVar[tuple[str, ...]] = ()
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
    """What decides about a scheduler's noise; all of diffusers' schedulers use the same names."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: _Beta = 0.0001
    beta_end: _Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: Annotated[list[_Beta], Field(min_length=1, max_length=100_000)] | None = None
    rescale_betas_zero_snr: bool = False


def checked_config(
    kind: type[NetworkConfig], values: Any, source: object, network: type[Any] | None = None
) -> dict[str, Any]:
    """Return the known keys of a config, as far as it gives them.

    Args:
        kind: what it should be.
        values: as in the file.
        source: the file, for messages.
        network: class whose constructor takes the keys; of its other parameters none may differ from the default.

    Raises:
        WeightsError: another network's config, a value that does not fit, or a key that is not supported.
    """
    if not isinstance(values, Mapping):
        raise WeightsError(f"{source} is not a JSON object.", kind.remedy)
    name = values.get("_class_name", kind.class_name)
    if kind.class_name and name != kind.class_name:
        raise WeightsError(f"{source}: the config is of a {name}, not of a {kind.class_name}.", kind.remedy)
    for key, parameter in inspect.signature(network).parameters.items() if network is not None else ():
        if key in values and key not in (*kind.model_fields, *kind.unused) and values[key] != parameter.default:
            raise WeightsError(
                f"{source} is of another architecture: {key} = {_shown(values[key])} is not supported.", kind.remedy
            )
    try:
        return kind.model_validate(dict(values)).model_dump(exclude_unset=True)
    except ValidationError as error:
        cause = error.errors()[0]
        given = "" if cause["type"] == "missing" else f" = {_shown(cause['input'])}"
        key = f"{cause['loc'][0]}{given}: " if cause["loc"] else ""
        raise WeightsError(f"{source}: {key}{cause['msg'].removeprefix('Value error, ')}.", kind.remedy) from error


@contextmanager
def building(
    source: object, name: str, remedy: str = "Fetch the files again, or name another model."
) -> Iterator[None]:
    """Turn whatever goes wrong in a library while it builds a network from files into a `WeightsError`.

    For building and loading alone: an error in a forward pass is one of the program.

    Args:
        source: the file or folder, for the message.
        name: of what is built.
        remedy: for the message.
    """
    try:
        yield
    except (PropagateError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cause = " ".join(str(error).split())
        raise WeightsError(
            f"{source} does not make a {name} ({type(error).__name__}: {_shown_text(cause)}).", remedy
        ) from error


def _shown(value: Any) -> str:
    return _shown_text(repr(value))


def _shown_text(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."
