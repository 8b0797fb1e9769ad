"""Extractors that fit something to a clip, such as the basis of a PCA, before they compute features.

A Tale of Two Features (Zhang et al., NeurIPS 2023) fits the PCA on both pictures of a pair together. A clip has no such
pair: every frame is projected on the basis of the anchors, around their mean, and loses what lies outside that basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.features.extractor import FeatureExtractor, Features, Images, Indices


@runtime_checkable
class AnchoredExtractor(FeatureExtractor, Protocol):
    """An extractor that fits something to anchor pictures; features of two anchors cannot be compared.

    Called without an anchor where it needs one, it raises a UsageError.
    """

    def anchored(self, images: Images, indices: Indices = None) -> FeatureExtractor:
        """Return an extractor for one clip, or this one if it has nothing to fit; this one does not change.

        Args:
            images: the anchors: the first frame of a clip, or all pictures that are matched with one another.
            indices: their frame indices.

        Raises:
            UsageError: the pictures are too small.
        """


def anchored(extractor: FeatureExtractor, images: Images, indices: Indices = None) -> FeatureExtractor:
    """Return the extractor for one clip, as `AnchoredExtractor.anchored`; extractors of other kinds unchanged."""
    return extractor.anchored(images, indices) if isinstance(extractor, AnchoredExtractor) else extractor


def no_anchor(extractor: FeatureExtractor) -> UsageError:
    """Return the error for a call without the anchor that the extractor needs."""
    return UsageError(
        f"{type(extractor).__name__} reduces features by PCA, and its basis has not been fitted.",
        "Call `anchored(extractor, first_frame)`, as `track` does, and use what it returns; or leave out the PCA.",
    )


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """A basis and the mean around which features are projected."""

    mean: Float[Tensor, " c"]  # float32, of the fitted cells
    basis: Float[Tensor, "c d"]  # float32, orthonormal, largest variance first; zero after the first cells - 1 columns

    def project(self, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        """Project features (B, C, h, w) to (B, D, h, w), without whitening."""
        centered = features.float() - self.mean[:, None, None]
        return torch.einsum("bcyx,cd->bdyx", centered, self.basis)


def fit_principal_components(features: Features, components: int) -> PrincipalComponents:
    """Fit the first `components` (at most C) principal components of all B * h * w cells of a batch.

    They are exact, in float64 on the CPU, and each direction's largest entry is positive: the published randomized
    solver depends on its seed, and its signs are arbitrary.
    """
    batch, channels, height, width = features.shape
    cells = features.detach().cpu().double().permute(0, 2, 3, 1).reshape(-1, channels)
    mean = cells.mean(0)
    centered = cells - mean
    _, directions = torch.linalg.eigh(centered.T @ centered)  # ascending
    basis = directions.flip(1)[:, :components]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    basis = torch.where(largest < 0, -basis, basis) * (torch.arange(components) < batch * height * width - 1)
    return PrincipalComponents(mean.to(features.device, torch.float32), basis.to(features.device, torch.float32))
