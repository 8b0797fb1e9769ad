"""Configs of transformers' networks: vision transformers and CLIP's text model. See `network_configs`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from propagate.features.networks.configs import MODEL_REMEDY, Depth, Epsilon, NetworkConfig, Width

_Activation = Literal["gelu", "quick_gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish"]
_Side = Annotated[int, Field(ge=1, le=1 << 14)]
_Sides = _Side | Annotated[list[_Side], Field(min_length=2, max_length=2)]
_Inner = Annotated[int, Field(ge=1, le=1 << 18)]
_Registers = Annotated[int, Field(ge=0, le=1024)]


class TransformerConfig(NetworkConfig):
    """What all of them have in common; a key that a file leaves out has the library's default."""

    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Width = 12
    hidden_act: _Activation = "gelu"
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
