"""An extractor whose features are kept on disk: a second pass over a clip (a corrected mask, another top-k) costs only
the transfer.

What features are kept under is what they are made from, and nothing else:

- a folder per way of making them, see `feature_cache.identity`. Its `extractor.json` says what was hashed, and
  what the rest of the program has to know of the extractor, so that it need not be built;
- a file per picture, named by a hash of the picture as the network gets it, at its working size, its index and, where
  the extractor learns something from the first frame, that frame. Where a picture lies, what the file is called and
  when it was changed plays no part; a clip that was moved, cut at its end or packed anew without loss is known again.

Features are kept as the extractor gives them, in its precision: results are the same bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from propagate.settings import FeatureSettings, ResolvedSettings

_DESCRIPTION = "extractor.json"


class CachedExtractor:
    """An extractor whose features are taken from a cache where they are there.

    The extractor itself is built, and its weights are read, when there is a picture that the cache does not have.

    Args:
        resolved: settings; those of the features name the extractor.
        cache: where features are kept.

    Attributes:
        device: where the features lie.

    Raises:
        UsageError: unknown extractor or option.
        WeightsError: weights cannot be read.
    """

    draws_per_pass: int  # of an ensemble only: whoever asks for the attribute asks whether it is one

    def __init__(self, resolved: ResolvedSettings, cache: FeatureCache) -> None:
        self.device = device_of(resolved.settings.features)
        self._cache = cache
        self._lazy = _Lazy(resolved.settings.features)
        identity = extractor_identity(resolved, self.device)
        known = read_description(cache.folder / _name(identity), identity)
        is_new = known is None
        if known is None:
            known = describe(self.network)
            identity = extractor_identity(resolved, self.device)  # of weights that may have been fetched just now
        self._folder = cache.claim(_name(identity))
        if is_new:
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
        """Whether the extractor itself was built, here or for another clip."""
        return self._lazy.extractor is not None

    @property
    def network(self) -> FeatureExtractor:
        """The extractor itself, which is built where it was not."""
        return self._lazy.built()

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
        """See `FinerExtractor`; kept beside what a call gives."""
        return self._features(images, indices, finer=True)

    def _features(self, images: Tensor, indices: Sequence[int] | None, *, finer: bool) -> Tensor:
        numbers = list(range(len(images)) if indices is None else indices)
        if is_in_torch_dispatch_mode():  # an estimate: the pictures have no content
            return self._computed(images, numbers, finer)
        paths = [self._path(image, number, finer) for image, number in zip(images, numbers, strict=True)]
        found = [self._load(path, image, finer) for path, image in zip(paths, images, strict=True)]
        missing = [place for place, features in enumerate(found) if features is None]
        if missing:
            chosen = images if len(missing) == len(images) else images[missing]
            computed = self._computed(chosen, [numbers[place] for place in missing], finer)
            for place, features in zip(missing, computed, strict=True):
                self._cache.keep(paths[place], features)
                found[place] = features
        self._cache.counts["computed"] += len(missing)
        self._cache.counts["found"] += len(images) - len(missing)
        return torch.stack([features.to(self.device) for features in found if features is not None])

    def anchored(self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None) -> FeatureExtractor:
        """See `AnchoredExtractor`: learned when the first features are computed."""
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
        found = self._cache.load(path)
        return found if found is not None and found.shape == (channels, rows, columns) else None


def _name(identity: Mapping[str, Any]) -> str:
    """Of the folder of the features."""
    return settings_hash(identity)[:32]


class _Lazy:
    """An extractor that is built when it is asked for."""

    def __init__(self, settings: FeatureSettings) -> None:
        self.extractor: FeatureExtractor | None = None
        self._settings = settings

    def built(self) -> FeatureExtractor:
        if self.extractor is None:
            self.extractor = build_extractor(self._settings.name, **self._settings.options)
        return self.extractor


def _digest(pictures: Tensor, indices: Sequence[int]) -> bytes:
    content = pictures.cpu().contiguous()
    digest = hashlib.sha256(f"{[int(index) for index in indices]} {tuple(content.shape)} {content.dtype} ".encode())
    digest.update(content.numpy().data.cast("B"))
    return digest.digest()
