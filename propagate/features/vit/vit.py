"""`dino`, `dinov2`, `dinov3`, `openclip`: patch tokens of vision transformers as the grid.

One frame, one forward pass, no noise: the tokens of one block's output, without the class token and the registers,
laid out row after row. Caron et al. 2021 (DINO), Oquab et al. 2023 (DINOv2), Darcet et al. 2023 (registers), Simeoni
et al. 2025 (DINOv3); OpenCLIP as DIFT's baseline has it (Tang et al. 2023). The networks are those of transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from propagate.errors import UsageError, WeightsError
from propagate.features.device import compile_blocks, resolve_device
from propagate.features.diffusion.core import run_until
from propagate.features.option_types import Count, Multiple
from propagate.features.vit.families import DINO, DINOV2, DINOV3, OPENCLIP, Family
from propagate.features.vit.files import VitFiles, build_network, open_vit
from propagate.features.vit.positions import PositionRule, RotaryPositions, interpolate_positions
from propagate.settings import nearest
from propagate.weights.locating import Wanted, located
from propagate.weights.registry import MODELS, HubSource

Facet = Literal["token", "key", "query", "value"]
Positive = Annotated[float, Field(ge=1e-6, le=1e6)]

# classes that refuse pictures of another size unless told
_TOLD_TO_INTERPOLATE = ("vit", "clip_vision_model")


class VisionTransformer:
    """Patch tokens of a vision transformer; `Dino`, `DinoV2`, `DinoV3` and `OpenClip` are the ones that can be built.

    Args:
        weights: a folder in transformers' layout (config.json, model.safetensors), a hub id, or for `dino` a
            checkpoint of its own (.pth); None: the published model that `variant` names.
        revision: of the hub's repository.
        variant: which published model, where no weights are named; None: the family's first.
        layer: block whose output is taken, from 0, or from the end with -1 for the last. What comes after it is not
            computed and not kept.
        facet: the block's output ("token"), or what its attention makes of its input: "key", "query" or "value", all
            heads side by side (of DINOv3 before their rotation).
        norm: the network's final norm over the tokens; None: as the published evaluations have it (OpenCLIP: no, the
            others: yes, after any block). Keys, queries and values are never normed.
        position_offset: of the interpolation of learned positions, see `PositionRule`; None: as published (0.1, with
            registers 0); 0: the rule of transformers. DINOv3 has no learned positions.
        multiple: both sides of the pictures become multiples of this; None: of the patch.
        mean, std: of the colors (red, green, blue in 0 .. 1); None: what the folder's preprocessor_config.json says,
            else the family's.
        head_channels: channels of an attention head of a DINO checkpoint, which does not tell them; None: 64, as in
            all published ones, or what a folder says.
        dtype: "auto" is half precision on a CUDA GPU (float16, for DINOv3 bfloat16) and float32 elsewhere.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        compile: the blocks are given to `torch.compile`, see `propagate.features.device.compile_blocks`.

    Raises:
        UsageError: no such variant, layer or multiple, or an option that the model has no use for.
        WeightsError: the weights are missing, damaged or of another architecture.
    """

    family: ClassVar[Family]

    @classmethod
    def wanted_weights(
        cls,
        weights: str | Path | None = None,
        revision: str | None = None,
        variant: str | None = None,
        **_: Any,
    ) -> tuple[Wanted, ...]:
        """The weights that these options need.

        Raises:
            UsageError: no such variant.
        """
        models, access = cls.family.models, cls.family.access
        if variant is not None and variant not in models:
            raise UsageError(f"features.variant = {variant}: there is no such model.", nearest(variant, models))
        model = models[variant or next(iter(models))]
        if access:
            repository = next(s.repository for s in MODELS[model].sources if isinstance(s, HubSource))
            access = access.format(repository=repository)
        return (Wanted(model, weights, revision, access),)

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        revision: str | None = None,
        variant: str | None = None,
        layer: int = -1,
        facet: Facet = "token",
        norm: bool | None = None,
        position_offset: Annotated[float, Field(ge=0, le=0.5)] | None = None,
        multiple: Multiple | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[Positive, Positive, Positive] | None = None,
        head_channels: Count | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
        compile: bool = False,
    ) -> None:
        if norm and facet != "token":
            raise UsageError(f"features.norm = true: a {facet} is never normed.", "Leave it out, or take facet=token.")
        self.device = resolve_device(device)
        half = self.family.half if self.device.type == "cuda" else torch.float32
        self.dtype = half if dtype == "auto" else getattr(torch, dtype)
        files = open_vit(
            located(*self.wanted_weights(weights, revision, variant)), self.family.positions, head_channels
        )
        self._network = build_network(files, self.dtype)
        config = self._network.config
        self.stride = _patch(files, config)
        self.multiple = _working_multiple(multiple, self.stride)
        blocks = _blocks(self._network, int(config.num_hidden_layers))
        block = blocks[_checked_layer(layer, len(blocks))]
        del blocks[layer % len(blocks) + 1 :]
        self._tap, self.channels = (block, int(config.hidden_size)) if facet == "token" else _projection(block, facet)
        is_normed = facet == "token" and (self.family.final_norm if norm is None else norm)
        self._norm = _final_norm(self._network) if is_normed else nn.Identity()
        self._place(config, self.family.positions[files.kind], position_offset)
        self._options = {"interpolate_pos_encoding": True} if files.kind in _TOLD_TO_INTERPOLATE else {}
        self._network.to(self.device)
        if compile:
            compile_blocks(blocks, self._tap)
        self._mean = _color(mean or files.mean or self.family.mean, self.device)
        self._std = _color(std or files.std or self.family.std, self.device)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of the patch."""
        rows, columns = (side // self.stride for side in images.shape[-2:])
        if (rows * self.stride, columns * self.stride) != tuple(images.shape[-2:]):
            raise ValueError(f"sides must be multiples of {self.stride}, not {tuple(images.shape[-2:])}")
        pixels = self.normalized(images).to(self.dtype)
        tokens: Tensor = self._norm(run_until(self._tap, lambda: self._network(pixels, **self._options)))
        # the class token and the registers lie before the patches
        patches = tokens[:, -rows * columns :].float().transpose(1, 2)
        return patches.reshape(len(images), self.channels, rows, columns)

    def normalized(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """What the network is given: float32, mean taken off, divided by the standard deviation."""
        return (images.to(self.device, torch.float32) - self._mean) / self._std

    def _place(self, config: Any, rule: PositionRule | None, offset: float | None) -> None:
        """Put the published rule of positions in the place of transformers' own."""
        if rule is None:
            if offset is not None:
                raise UsageError(
                    f"features.position_offset = {offset}: the model has no learned positions.", "Leave it out."
                )
            head_channels = int(config.hidden_size // config.num_attention_heads)
            self._network.rope_embeddings = RotaryPositions(float(config.rope_theta), head_channels, self.stride)
            return
        chosen = rule if offset is None else PositionRule(offset, rule.antialias)
        embeddings = getattr(self._network, "vision_model", self._network).embeddings
        sides = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size] * 2
        trained = (int(sides[0]) // self.stride, int(sides[1]) // self.stride)

        def interpolated(_embeddings: Tensor, height: int, width: int) -> Tensor:
            return interpolate_positions(
                _table(embeddings), trained, (height // self.stride, width // self.stride), chosen
            )

        embeddings.interpolate_pos_encoding = interpolated


class Dino(VisionTransformer):
    """DINO's ViT-S/16 (the default), S/8, B/16 and B/8; the options are those of `VisionTransformer`."""

    family = DINO


class DinoV2(VisionTransformer):
    """DINOv2's ViT-B/14 (the default), S, L and g, with and without registers; options as `VisionTransformer`."""

    family = DINOV2


class DinoV3(VisionTransformer):
    """DINOv3's ViT-B/16 (the default), S, S+, L and H+; its licence has to be accepted. As `VisionTransformer`."""

    family = DINOV3


class OpenClip(VisionTransformer):
    """The picture tower of OpenCLIP's ViT-H/14, or of any CLIP in transformers' layout. As `VisionTransformer`."""

    family = OPENCLIP


def _patch(files: VitFiles, config: Any) -> int:
    sides = config.patch_size if isinstance(config.patch_size, list | tuple) else [config.patch_size] * 2
    if sides[0] != sides[1] or config.num_channels != 3:
        raise WeightsError(
            f"{files.source} takes patches of {sides[1]}x{sides[0]} pixels with {config.num_channels} channels.",
            "Name a model with square patches of color pictures.",
        )
    return int(sides[0])


def _working_multiple(multiple: int | None, patch: int) -> int:
    if (multiple or patch) % patch:
        raise UsageError(
            f"features.multiple = {multiple}: the model has patches of {patch} pixels.",
            f"Choose a multiple of {patch}.",
        )
    return multiple or patch


def _checked_layer(layer: int, depth: int) -> int:
    if not -depth <= layer < depth:
        raise UsageError(
            f"features.layer = {layer}: the model has {depth} blocks.", f"Choose 0 to {depth - 1}, or -1 for the last."
        )
    return layer


def _blocks(network: nn.Module, depth: int) -> nn.ModuleList:
    return next(module for module in network.modules() if isinstance(module, nn.ModuleList) and len(module) == depth)


def _projection(block: nn.Module, facet: Facet) -> tuple[nn.Module, int]:
    """What makes the keys, queries or values of a block, and their channels."""
    layers = ((name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear))
    return next((module, module.out_features) for name, module in layers if name.endswith(f".{facet[0]}_proj"))


def _final_norm(network: nn.Module) -> nn.Module:
    parts: dict[str, nn.Module] = dict(getattr(network, "vision_model", network).named_children())
    return next(parts[name] for name in ("layernorm", "norm", "post_layernorm") if name in parts)


def _table(embeddings: Any) -> Float[Tensor, "1 n d"]:
    if hasattr(embeddings, "position_embedding"):  # CLIP's
        table: Tensor = embeddings.position_embedding.weight[None]
        return table
    learned: Tensor = embeddings.position_embeddings
    return learned


def _color(values: Sequence[float], device: torch.device) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
