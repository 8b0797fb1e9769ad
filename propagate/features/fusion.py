"""`fusion`: the features of several extractors as one, such as Stable Diffusion's with DINOv2's.

Each part comes to a common grid, is reduced by PCA where asked, divided by its length, weighted and concatenated (A
Tale of Two Features, Zhang et al., NeurIPS 2023): the cosine of two fused features is then the mean of the parts'
cosines, weighted by the squares of the weights.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import lcm
from typing import Annotated, Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from propagate.errors import UsageError
from propagate.features import build_extractor, extractor_options, wanted_weights
from propagate.features.anchoring import anchored, no_anchor
from propagate.features.device import resolve_device
from propagate.features.extractor import EnsembleExtractor, FeatureExtractor
from propagate.features.option_types import Count
from propagate.features.pca import PrincipalComponents, fit_principal_components
from propagate.settings.checks import reject_bool_as_number
from propagate.weights.locating import Wanted

_T = TypeVar("_T")


class PartSettings(BaseModel):
    """One part of a fusion; keys beside these are options of its extractor.

    Attributes:
        name: of the extractor.
        weight: of the part, after normalization.
        pca: components to keep; None: all channels.
        normalize: divide by the length of the feature. Without it, a part weighs as much as its features are long.
        fit: how a part with another stride comes to the common grid. "features": it sees the picture as it is, and its
            features are resampled; "picture": it sees the picture at the size at which its own grid is the common one.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
    weight: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    pca: Count | None = None
    normalize: bool = True
    fit: Literal["features", "picture"] = "features"

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: Any) -> Any:
        return reject_bool_as_number(value, cls.model_fields[str(info.field_name)].annotation)


PART_DEFAULTS = {name: field.default for name, field in PartSettings.model_fields.items() if not field.is_required()}


@dataclass(frozen=True, eq=False)
class _Part:
    settings: PartSettings
    place: int
    extractor: FeatureExtractor
    draws: int  # that share a pass at most
    basis: PrincipalComponents | None = None

    @property
    def channels(self) -> int:
        return self.settings.pca or self.extractor.channels


class Fusion:
    """Several extractors as one.

    The grid is that of the finest part that sees the picture as it is. Parts on one device are computed in turn, those
    on different devices side by side. Where a part has a PCA, the extractor has to be anchored (see
    `propagate.features.anchoring`), which computes the anchor's features once more than a call does.

    Args:
        parts: of each the extractor's name and options, and the keys of `PartSettings`.
        device: where the fused features lie, and of the parts that name none of their own: "auto", "cpu", "cuda",
            "cuda:1", "mps".

    Raises:
        UsageError: an unknown part or option, or parts whose grids cannot agree.
        WeightsError: weights of a part are missing.
    """

    @staticmethod
    def wanted_weights(*, parts: list[dict[str, Any]], **_: Any) -> tuple[Wanted, ...]:
        """The weights that the parts need.

        Raises:
            UsageError: an unknown part or option.
        """
        found = list[Wanted]()
        for place, part in enumerate(parts):
            settings = _checked(place, part)
            with _naming(place):
                found += wanted_weights(settings.name, **(settings.model_extra or {}))
        return tuple(found)

    def __init__(self, *, parts: list[dict[str, Any]], device: str = "auto") -> None:
        self.device = resolve_device(device)
        if not parts:
            raise UsageError("features.parts is empty.", "Name the extractors: parts: [{name: ...}, {name: ...}].")
        self._parts = [_built(place, _checked(place, part), device) for place, part in enumerate(parts)]
        whole = [part.extractor for part in self._parts if part.settings.fit == "features"]
        if not whole:
            raise UsageError(
                "features.parts: with fit = picture in every part there is no grid to fit to.",
                "Leave it out of the part whose grid is to be the common one.",
            )
        self.stride = min(extractor.stride for extractor in whole)
        # whole cells of every part, so that all grids cover the same pixels
        self.multiple = lcm(*(lcm(extractor.stride, extractor.multiple) for extractor in whole))
        self.channels = sum(part.channels for part in self._parts)

    @property
    def draws_per_pass(self) -> int:
        """See `EnsembleExtractor`: the most of any part."""
        return max(_draws(part.extractor) for part in self._parts)

    @draws_per_pass.setter
    def draws_per_pass(self, draws: int) -> None:
        for part in self._parts:
            if isinstance(part.extractor, EnsembleExtractor):
                part.extractor.draws_per_pass = min(draws, part.draws)

    def anchored(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None) -> FeatureExtractor:
        """See `AnchoredExtractor`.

        Raises:
            UsageError: a part's grid over the anchors has too few cells for its components.
        """
        self._check_sides(images)
        parts = self._each(lambda part: self._anchored(part, images, indices))
        if all(new is old for new, old in zip(parts, self._parts, strict=True)):
            return self
        fitted = copy.copy(self)
        fitted._parts = parts
        return fitted

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be whole cells of every part."""
        self._check_sides(images)
        if any(part.settings.pca is not None and part.basis is None for part in self._parts):
            raise no_anchor(self)
        parts = self._each(lambda part: self._features(part, images, indices))
        return torch.cat([features.to(self.device) for features in parts], 1)

    def _check_sides(self, images: Tensor) -> None:
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"sides must be multiples of {self.multiple}, not {tuple(images.shape[-2:])}")

    def _anchored(self, part: _Part, images: Tensor, indices: Sequence[int] | None) -> _Part:
        picture = self._picture(part, images)
        extractor = anchored(part.extractor, picture, indices)
        if part.settings.pca is None:
            return part if extractor is part.extractor else replace(part, extractor=extractor)
        features = extractor(picture, indices)
        cells = features.shape[0] * features.shape[-2] * features.shape[-1]
        if part.settings.pca >= cells:
            raise UsageError(
                f"features.parts.{part.place}.pca = {part.settings.pca}: {part.settings.name} gives a grid of "
                f"{features.shape[-1]}x{features.shape[-2]} cells, of which at most {cells - 1} components can be had.",
                "Lower it, or raise video.short_side.",
            )
        return replace(part, extractor=extractor, basis=fit_principal_components(features, part.settings.pca))

    def _features(self, part: _Part, images: Tensor, indices: Sequence[int] | None) -> Float[Tensor, "b c y x"]:
        features = part.extractor(self._picture(part, images), indices).float()
        if part.basis is not None:
            # before resampling: both are linear, and the part's own grid has fewer cells
            features = part.basis.project(features)
        grid = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        if features.shape[-2:] != grid:
            features = F.interpolate(features, grid, mode="bilinear", align_corners=False)
        features = F.normalize(features, dim=1) if part.settings.normalize else features
        return features * part.settings.weight

    def _picture(self, part: _Part, images: Tensor) -> Float[Tensor, "b 3 h w"]:
        stride = part.extractor.stride
        if part.settings.fit == "features" or stride == self.stride:
            return images
        size = [side // self.stride * stride for side in images.shape[-2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)

    def _each(self, of_part: Callable[[_Part], _T]) -> list[_T]:
        """A result per part; parts on different devices work at the same time, each device in a thread."""
        by_device: dict[object, list[_Part]] = defaultdict(list)
        for part in self._parts:
            by_device[_place(part.extractor)].append(part)
        # an estimate of memory has to see every operation, and the modes it sees them with are the thread's own
        if len(by_device) == 1 or is_in_torch_dispatch_mode():
            with torch.no_grad():
                return [of_part(part) for part in self._parts]

        def in_turn(parts: list[_Part]) -> list[tuple[int, _T]]:
            with torch.no_grad():
                return [(part.place, of_part(part)) for part in parts]

        with ThreadPoolExecutor(len(by_device)) as pool:
            results = dict(pair for pairs in pool.map(in_turn, by_device.values()) for pair in pairs)
        return [results[part.place] for part in self._parts]


def part_options(part: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a part that are its extractor's options."""
    return {key: value for key, value in part.items() if key not in PartSettings.model_fields}


def _checked(place: int, part: dict[str, Any]) -> PartSettings:
    try:
        return PartSettings.model_validate(part)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["features.parts", str(place), *(str(name) for name in first["loc"][:1])])
        raise UsageError(
            f"{key} = {first['input']!r}: {first['msg']}.", "A part is {name: EXTRACTOR, weight: 1.0, pca: null, ...}."
        ) from error


@contextmanager
def _naming(place: int) -> Iterator[None]:
    """Say of an error of a part's options which part it is."""
    try:
        yield
    except UsageError as error:
        raise UsageError(error.message.replace("features", f"features.parts.{place}", 1), error.remedy) from error


def _built(place: int, settings: PartSettings, device: str) -> _Part:
    options = dict(settings.model_extra or {})
    prefix = f"features.parts.{place}"
    with _naming(place):
        if "device" in extractor_options(settings.name):
            options.setdefault("device", device)
        extractor = build_extractor(settings.name, **options)
    if settings.pca is not None and settings.pca > extractor.channels:
        raise UsageError(
            f"{prefix}.pca = {settings.pca}: {settings.name} has {extractor.channels} channels.", "Lower it."
        )
    if settings.fit == "picture" and extractor.stride % extractor.multiple:
        raise UsageError(
            f"{prefix}.fit = picture: {settings.name} takes multiples of {extractor.multiple} pixels and its cells are "
            f"{extractor.stride}; not every grid can be had.",
            "Use fit = features.",
        )
    return _Part(settings, place, extractor, _draws(extractor))


def _draws(extractor: FeatureExtractor) -> int:
    return extractor.draws_per_pass if isinstance(extractor, EnsembleExtractor) else 1


def _place(extractor: FeatureExtractor) -> tuple[str, int]:
    device = torch.device(getattr(extractor, "device", "cpu"))
    return device.type, device.index or 0
