"""An extractor with a cache on disk: a second pass over a clip (corrected mask, other top-k) costs only the transfer.

A folder per identity of the extractor (`feature_cache.identity`) has an `extractor.json`, with a description that saves
building it, and a file per picture. Its name is a hash of the network's input at its working size, its index and, if
the extractor fits the first frame, that frame. Path, name and time of the source do not matter: a clip that was moved,
cut at its end or re-encoded without loss hits the cache. Features keep their precision, so results are equal bit for
bit.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from propagate.feature_cache.identity import describe, extractor_identity, read_description, write_description
from propagate.feature_cache.store import FeatureCache
from propagate.features import FeatureExtractor, build_extractor
from propagate.features.anchoring import anchored
from propagate.features.extractor import EnsembleExtractor, FinerExtractor
from propagate.features.finer import both_maps
from propagate.formats import settings_hash
from propagate.provenance import device_of
from propagate.settings import ResolvedSettings


class CachedExtractor:
    """An extractor that reads features from a cache; the network is built at the first picture that is not cached."""

    draws_per_pass: int  # set for an ensemble only, because `EnsembleExtractor` is recognized by it

    def __init__(self, resolved: ResolvedSettings, cache: FeatureCache) -> None:
        features = resolved.settings.features
        self.device = device_of(features)
        self.cache = cache
        self._build = functools.cache(partial(build_extractor, features.name, **features.options))
        identity = extractor_identity(resolved, self.device)
        cached = known = read_description(cache.folder / settings_hash(identity)[:32], identity)
        if known is None:
            known = describe(self.network)
            identity = extractor_identity(resolved, self.device)  # weights may have been downloaded just now
        self._folder = cache.claim(settings_hash(identity)[:32])
        if cached is None:
            write_description(self._folder, identity, known)
        self.stride, self.channels, self.multiple = known.stride, known.channels, known.multiple
        self.finer_stride, self.finer_channels = known.finer_stride, known.finer_channels
        if known.draws_per_pass is not None:
            self.draws_per_pass = known.draws_per_pass
        self._learns, self.side_by_side = known.learns, known.side_by_side
        self._anchor: tuple[Tensor, Sequence[int] | None] | None = None
        self._anchor_digest = b""
        self._fitted: FeatureExtractor | None = None

    @property
    def is_built(self) -> bool:
        """Whether the network was built, here or for another clip."""
        return self._build.cache_info().currsize > 0

    @property
    def network(self) -> FeatureExtractor:
        """The cached extractor, built at the first access."""
        return self._build()

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`."""
        return self._features(images, indices, finer=False)

    @torch.no_grad()
    def with_finer(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """See `FinerExtractor`; cached separately from the features of a call."""
        return self._features(images, indices, finer=True)

    def _features(self, images: Tensor, indices: Sequence[int] | None, *, finer: bool) -> Tensor:
        numbers = list(range(len(images)) if indices is None else indices)
        if is_in_torch_dispatch_mode():  # a dry run: the pictures have no content
            return self._computed(images, numbers, finer)
        paths = [self._path(image, number, finer) for image, number in zip(images, numbers, strict=True)]
        found = [self._load(path, image, finer) for path, image in zip(paths, images, strict=True)]
        missing = [place for place, features in enumerate(found) if features is None]
        if missing:
            chosen = images if len(missing) == len(images) else images[missing]
            computed = self._computed(chosen, [numbers[place] for place in missing], finer)
            for place, features in zip(missing, computed, strict=True):
                self.cache.keep(paths[place], features)
                found[place] = features
        self.cache.counts["computed"] += len(missing)
        self.cache.counts["found"] += len(images) - len(missing)
        return torch.stack([features.to(self.device) for features in found if features is not None])

    def anchored(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None) -> FeatureExtractor:
        """See `AnchoredExtractor`: fitted when the first features are computed."""
        if is_in_torch_dispatch_mode():
            return anchored(self.network, images, indices)
        if not self._learns:
            return self
        fitted = copy.copy(self)
        fitted._anchor, fitted._fitted = (images, indices), None
        fitted._anchor_digest = _digest(images, indices or range(len(images)))
        return fitted

    def _computed(self, images: Tensor, numbers: Sequence[int], finer: bool) -> Tensor:
        if self._fitted is None:
            self._fitted = self.network if self._anchor is None else anchored(self.network, *self._anchor)
        if isinstance(self._fitted, EnsembleExtractor) and isinstance(self, EnsembleExtractor):
            self._fitted.draws_per_pass = self.draws_per_pass
        if finer and isinstance(self._fitted, FinerExtractor):
            return self._fitted.with_finer(images, numbers)
        return self._fitted(images, numbers)

    def _path(self, image: Tensor, number: int, finer: bool) -> Path:
        digest = hashlib.sha256(self._anchor_digest + _digest(image, (number,)))
        return self._folder / f"{digest.hexdigest()[:40]}{'-finer' if finer else ''}.safetensors"

    def _load(self, path: Path, image: Tensor, finer: bool) -> Tensor | None:
        rows, columns = (-(-side // self.stride) for side in image.shape[-2:])
        channels = both_maps(self).channels if finer else self.channels
        found = self.cache.load(path)
        return found if found is not None and found.shape == (channels, rows, columns) else None


def _digest(pictures: Tensor, indices: Sequence[int]) -> bytes:
    content = pictures.cpu().contiguous()
    digest = hashlib.sha256(f"{[int(index) for index in indices]} {tuple(content.shape)} {content.dtype} ".encode())
    digest.update(content.numpy().data.cast("B"))
    return digest.digest()
