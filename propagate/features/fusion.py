"""`fusion`: the features of several extractors as one, such as Stable Diffusion's with DINOv2's.

Each part is brought to a common grid, optionally reduced by PCA, normalized, weighted and concatenated (A Tale of Two
Features, Zhang et al., NeurIPS 2023). The cosine of two fused features is the mean of the parts' cosines, weighted by
the squares of the weights.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
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
from propagate.features.anchoring import PrincipalComponents, anchored, fit_principal_components, no_anchor
from propagate.features.device import resolve_device
from propagate.features.extractor import EnsembleExtractor, FeatureExtractor, Features, Images, Indices, check_sides
from propagate.features.options import Count
from propagate.settings.checks import reject_bool_as_number
from propagate.weights.locating import Wanted

_T = TypeVar("_T")


class PartSettings(BaseModel):
    """One part of a fusion; all other keys are options of its extractor."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
    weight: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0  # after normalization
    pca: Count | None = None  # number of components; None: all channels
    normalize: bool = True  # divide features by their length
    # with another stride: resample the features, or resize the picture so that its own grid is the common one
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
    draws: int  # most draws per pass
    basis: PrincipalComponents | None = None

    @property
    def channels(self) -> int:
        return self.settings.pca or self.extractor.channels


class Fusion:
    """Several extractors as one, on the grid of the finest part with fit = features.

    Parts on one device run in turn, parts on different devices in parallel. With a PCA, the extractor must be anchored
    (see `propagate.features.anchoring`), which computes the anchor's features once more than a call does.

    Args:
        parts: for each part the extractor's name and options, and the keys of `PartSettings`.
        device: device of the fused features, and default of the parts.
    """

    @staticmethod
    def wanted_weights(*, parts: list[dict[str, Any]], **_: Any) -> tuple[Wanted, ...]:
        """Return the weights that the parts need."""
        weights = list[Wanted]()
        for place, part in enumerate(parts):
            settings = _checked(place, part)
            with _naming(place):
                weights += wanted_weights(settings.name, **(settings.model_extra or {}))
        return tuple(weights)

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
        """See `EnsembleExtractor`: the largest number of any part."""
        return max(_draws(part.extractor) for part in self._parts)

    @draws_per_pass.setter
    def draws_per_pass(self, draws: int) -> None:
        for part in self._parts:
            if isinstance(part.extractor, EnsembleExtractor):
                part.extractor.draws_per_pass = min(draws, part.draws)

    def anchored(self, images: Images, indices: Indices = None) -> FeatureExtractor:
        """See `AnchoredExtractor`; a UsageError if a part's grid has fewer cells than components."""
        check_sides(images, self.multiple)
        parts = self._each(lambda part: self._anchored(part, images, indices))
        if all(new is old for new, old in zip(parts, self._parts, strict=True)):
            return self
        fitted = copy.copy(self)
        fitted._parts = parts
        return fitted

    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FeatureExtractor`."""
        check_sides(images, self.multiple)
        if any(part.settings.pca is not None and part.basis is None for part in self._parts):
            raise no_anchor(self)
        parts = self._each(lambda part: self._features(part, images, indices))
        return torch.cat([features.to(self.device) for features in parts], 1)

    def _anchored(self, part: _Part, images: Images, indices: Indices) -> _Part:
        picture = self._picture(part, images)
        extractor = anchored(part.extractor, picture, indices)
        if part.settings.pca is None:
            return part if extractor is part.extractor else replace(part, extractor=extractor)
        features = extractor(picture, indices)
        cells = features.shape[0] * features.shape[-2] * features.shape[-1]
        if part.settings.pca >= cells:
            raise UsageError(
                f"features.parts.{part.place}.pca = {part.settings.pca}: {part.settings.name} gives a grid of "
                f"{features.shape[-1]}x{features.shape[-2]} cells, which has at most {cells - 1} components.",
                "Lower it, or raise video.short_side.",
            )
        return replace(part, extractor=extractor, basis=fit_principal_components(features, part.settings.pca))

    def _features(self, part: _Part, images: Images, indices: Indices) -> Features:
        features = part.extractor(self._picture(part, images), indices).float()
        if part.basis is not None:
            # before resampling: both are linear, and the part's own grid has fewer cells
            features = part.basis.project(features)
        grid = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        if features.shape[-2:] != grid:
            features = F.interpolate(features, grid, mode="bilinear", align_corners=False)
        features = F.normalize(features, dim=1) if part.settings.normalize else features
        return features * part.settings.weight

    def _picture(self, part: _Part, images: Images) -> Float[Tensor, "b 3 y x"]:
        stride = part.extractor.stride
        if part.settings.fit == "features" or stride == self.stride:
            return images
        size = [side // self.stride * stride for side in images.shape[-2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)

    def _each(self, compute: Callable[[_Part], _T]) -> list[_T]:
        """Return a result per part; each device has a thread."""
        by_device: dict[object, list[_Part]] = defaultdict(list)
        for part in self._parts:
            device = torch.device(getattr(part.extractor, "device", "cpu"))
            by_device[device.type, device.index or 0].append(part)

        def in_turn(parts: list[_Part]) -> list[tuple[int, _T]]:
            with torch.no_grad():
                return [(part.place, compute(part)) for part in parts]

        # a dry run has to see every operation, and its modes belong to this thread
        if len(by_device) == 1 or is_in_torch_dispatch_mode():
            return [result for _, result in in_turn(self._parts)]
        with ThreadPoolExecutor(len(by_device)) as pool:
            results = dict(pair for pairs in pool.map(in_turn, by_device.values()) for pair in pairs)
        return [results[part.place] for part in self._parts]


def part_options(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a part that are its extractor's options."""
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
    """Add the part to the message of an error about its options."""
    try:
        yield
    except UsageError as error:
        raise UsageError(error.message.replace("features", f"features.parts.{place}", 1), error.remedy) from error


def _built(place: int, settings: PartSettings, device: str) -> _Part:
    options = dict(settings.model_extra or {})
    with _naming(place):
        if "device" in extractor_options(settings.name):
            options.setdefault("device", device)
        extractor = build_extractor(settings.name, **options)
        if settings.pca is not None and settings.pca > extractor.channels:
            raise UsageError(
                f"features.pca = {settings.pca}: {settings.name} has {extractor.channels} channels.", "Lower it."
            )
        if settings.fit == "picture" and extractor.stride % extractor.multiple:
            raise UsageError(
                f"features.fit = picture: {settings.name} takes multiples of {extractor.multiple} pixels and its cells "
                f"are {extractor.stride}; it cannot produce every grid.",
                "Use fit = features.",
            )
    return _Part(settings, place, extractor, _draws(extractor))


def _draws(extractor: FeatureExtractor) -> int:
    return extractor.draws_per_pass if isinstance(extractor, EnsembleExtractor) else 1
