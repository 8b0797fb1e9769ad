"""`dino`, `dinov2`, `dinov3`, `openclip`: patch tokens of vision transformers as the grid.

One forward pass per frame, no noise: the tokens of one block's output, without the class token and the registers, row
after row. Caron et al. 2021 (DINO), Oquab et al. 2023 (DINOv2), Darcet et al. 2023 (registers), Simeoni et al. 2025
(DINOv3); OpenCLIP as in DIFT's baseline (Tang et al. 2023). The networks are those of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from propagate.errors import UsageError, WeightsError
from propagate.features.device import compile_blocks, resolve_device
from propagate.features.diffusion.core import run_until
from propagate.features.extractor import Features, Images, Indices, check_sides
from propagate.features.options import AutoDtype, Count, Multiple, Weights, working_multiple
from propagate.features.vit.loading import build_network, open_vit
from propagate.features.vit.positions import PositionRule, RotaryPositions, interpolate_positions
from propagate.settings import nearest
from propagate.weights.locating import Wanted, located
from propagate.weights.registry import MODELS, HubSource

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Family:
    """One family of models."""

    # `model_type` of its configs -> interpolation of its table of positions; None: rotary positions, without a table
    positions: Mapping[str, PositionRule | None]
    models: Mapping[str, str]  # published variant -> name in the registry of models; the first one is the default
    mean: Color = (0.485, 0.456, 0.406)  # ImageNet's
    std: Color = (0.229, 0.224, 0.225)
    final_norm: bool = True  # whether the published features are taken after the network's final norm
    half: torch.dtype = torch.float16  # half precision
    access: str = ""  # how to get access to weights that are not public


def _named(prefix: str, variants: str) -> dict[str, str]:
    return {variant: f"{prefix}-{variant}" for variant in variants.split()}


# vision_transformer.py of facebookresearch/dino; ViT-S/16 is the default of its video script
DINO = Family({"vit": PositionRule(0.1)}, _named("dino", "vits16 vits8 vitb16 vitb8"))

# hub/backbones.py of facebookresearch/dinov2: an offset of 0.1; with registers no offset, but antialiasing
DINOV2 = Family(
    {"dinov2": PositionRule(0.1), "dinov2_with_registers": PositionRule(0, antialias=True)},
    _named("dinov2", "base small large giant base-registers small-registers large-registers giant-registers"),
)

# no float16: an author's advice in facebookresearch/dinov3, thread 181
DINOV3 = Family(
    {"dinov3_vit": None},
    _named("dinov3", "vitb16 vits16 vits16plus vitl16 vith16plus vitl16-sat493m"),
    half=torch.bfloat16,
    access="DINOv3's licence has to be accepted first, on the hub's page of the repository {repository}; "
    "then log in with `hf auth login`.",
)

# DIFT's baseline (its clip.py): the raw output of a block, no norm; the offset as in DINO
OPENCLIP = Family(
    {"clip_vision_model": PositionRule(0.1)},
    _named("openclip", "vith14"),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    final_norm=False,
)


Facet = Literal["token", "key", "query", "value"]
Positive = Annotated[float, Field(ge=1e-6, le=1e6)]

# classes that accept pictures of another size only with an option
_NEEDS_INTERPOLATION = ("vit", "clip_vision_model")


class VisionTransformer:
    """Patch tokens of a vision transformer; `Dino`, `DinoV2`, `DinoV3` and `OpenClip` are the ones that can be built.

    Args:
        weights: a folder in transformers' layout (config.json, model.safetensors), a hub id, or for `dino` a
            checkpoint of its own (.pth); None: the published model of `variant`.
        variant: published model, if no weights are named; None: the family's first.
        layer: block whose output is taken, from 0, or from the end with -1 for the last. Later blocks are dropped.
        facet: the block's output ("token"), or a projection in its attention: "key", "query" or "value", all heads side
            by side (DINOv3's before their rotation).
        norm: apply the network's final norm to the tokens; None: as in the published evaluations (OpenCLIP: no, the
            others: yes, after any block). Keys, queries and values are never normed.
        position_offset: see `PositionRule`; None: as published (0.1, with registers 0); 0: the rule of transformers.
            DINOv3 has no learned positions.
        mean, std: normalization of RGB in [0, 1]; None: the folder's preprocessor_config.json, else the family's.
        head_channels: channels of an attention head of a DINO checkpoint, which does not show them; None: 64, as in all
            published ones, or the number in a folder's config.
        dtype: "auto" is half precision on a CUDA GPU (float16, for DINOv3 bfloat16) and float32 elsewhere.

    See `propagate.features.options` for the other options.
    """

    family: ClassVar[Family]

    @classmethod
    def wanted_weights(
        cls, weights: Weights = None, revision: str | None = None, variant: str | None = None, **_: Any
    ) -> tuple[Wanted, ...]:
        """Return the weights that these options need."""
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
        weights: Weights = None,
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
        dtype: AutoDtype = "auto",
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
        self.network = build_network(files, self.dtype)
        config = self.network.config
        sides = _pair(config.patch_size)
        if sides[0] != sides[1] or config.num_channels != 3:
            raise WeightsError(
                f"{files.source} takes patches of {sides[1]}x{sides[0]} pixels with {config.num_channels} channels.",
                "Name a model with square patches of color pictures.",
            )
        self.stride = sides[0]
        self.multiple = working_multiple(multiple, self.stride)
        lists = (module for module in self.network.modules() if isinstance(module, nn.ModuleList))
        blocks = next(blocks for blocks in lists if len(blocks) == config.num_hidden_layers)
        if not -len(blocks) <= layer < len(blocks):
            raise UsageError(
                f"features.layer = {layer}: the model has {len(blocks)} blocks.",
                f"Choose 0 to {len(blocks) - 1}, or -1 for the last.",
            )
        block = blocks[layer]
        del blocks[layer % len(blocks) + 1 :]
        self._tap, self.channels = (block, int(config.hidden_size)) if facet == "token" else _projection(block, facet)
        is_normed = facet == "token" and (self.family.final_norm if norm is None else norm)
        norms = ("layernorm", "norm", "post_layernorm")
        parts = dict(getattr(self.network, "vision_model", self.network).named_children())
        self._norm = next(parts[name] for name in norms if name in parts) if is_normed else nn.Identity()
        self._place(config, self.family.positions[files.kind], position_offset)
        self._options = {"interpolate_pos_encoding": True} if files.kind in _NEEDS_INTERPOLATION else {}
        self.network.to(self.device)
        if compile:
            compile_blocks(blocks, self._tap)
        self._mean = _color(mean or files.mean or self.family.mean, self.device)
        self._std = _color(std or files.std or self.family.std, self.device)

    @torch.no_grad()
    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FeatureExtractor`."""
        check_sides(images, self.stride)
        rows, columns = (side // self.stride for side in images.shape[-2:])
        pixels = self.normalized(images).to(self.dtype)
        tokens: Tensor = self._norm(run_until(self._tap, lambda: self.network(pixels, **self._options)))
        # the class token and the registers come before the patches
        patches = tokens[:, -rows * columns :].float().transpose(1, 2)
        return patches.reshape(len(images), self.channels, rows, columns)

    def normalized(self, images: Images) -> Images:
        """Return the network's input: float32, minus the mean, divided by the standard deviation."""
        return (images.to(self.device, torch.float32) - self._mean) / self._std

    def _place(self, config: Any, rule: PositionRule | None, offset: float | None) -> None:
        """Replace transformers' rule of positions by the published one."""
        if rule is None:
            if offset is not None:
                raise UsageError(
                    f"features.position_offset = {offset}: the model has no learned positions.", "Leave it out."
                )
            head_channels = int(config.hidden_size // config.num_attention_heads)
            self.network.rope_embeddings = RotaryPositions(float(config.rope_theta), head_channels, self.stride)
            return
        chosen = rule if offset is None else PositionRule(offset, rule.antialias)
        embeddings = getattr(self.network, "vision_model", self.network).embeddings
        height, width = _pair(config.image_size)
        trained = (height // self.stride, width // self.stride)

        def interpolated(_embeddings: Tensor, height: int, width: int) -> Tensor:
            is_clip = hasattr(embeddings, "position_embedding")
            table = embeddings.position_embedding.weight[None] if is_clip else embeddings.position_embeddings
            return interpolate_positions(table, trained, (height // self.stride, width // self.stride), chosen)

        embeddings.interpolate_pos_encoding = interpolated


class Dino(VisionTransformer):
    """DINO's ViT-S/16 (the default), S/8, B/16 and B/8; the options are those of `VisionTransformer`."""

    family = DINO


class DinoV2(VisionTransformer):
    """DINOv2's ViT-B/14 (the default), S, L and g, with and without registers; options as `VisionTransformer`."""

    family = DINOV2


class DinoV3(VisionTransformer):
    """DINOv3's ViT-B/16 (the default), S, S+, L and H+, with a licence to accept. As `VisionTransformer`."""

    family = DINOV3


class OpenClip(VisionTransformer):
    """The vision tower of OpenCLIP's ViT-H/14, or of any CLIP in transformers' layout. As `VisionTransformer`."""

    family = OPENCLIP


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return int(first), int(second)


def _projection(block: nn.Module, facet: Facet) -> tuple[nn.Module, int]:
    """Return the layer that computes the keys, queries or values of a block, and their channels."""
    layers = ((name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear))
    return next((module, module.out_features) for name, module in layers if name.endswith(f".{facet[0]}_proj"))


def _color(values: Sequence[float], device: torch.device) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
