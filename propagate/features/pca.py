"""Principal components: fitted once, on the cells of the anchors, and kept for the clip.

A Tale of Two Features (Zhang et al., NeurIPS 2023) fits on both pictures of a pair together. A clip has no such pair
that could be known beforehand: here every frame is projected on the basis, and about the mean, of the anchors. What
later frames show beyond that basis is not in their features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """A basis, and about which point it turns.

    Attributes:
        mean: (C,) float32, of the cells it was fitted on.
        basis: (C, D) float32, orthonormal, the direction of the largest variance first; directions that do not exist
            (there are at most cells - 1) are zero.
    """

    mean: Float[Tensor, " c"]
    basis: Float[Tensor, "c d"]

    def project(self, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        """Features (B, C, h, w) about the mean, on the basis: (B, D, h, w), not whitened."""
        centered = features.float() - self.mean[:, None, None]
        return torch.einsum("bcyx,cd->bdyx", centered, self.basis)


def fit_principal_components(features: Float[Tensor, "b c y x"], components: int) -> PrincipalComponents:
    """The principal components of all cells of a batch.

    Exact, in float64 on the CPU, and each direction's largest entry is positive: the published randomized solver
    depends on its seed, and its signs are free.

    Args:
        features: (B, C, h, w), B * h * w cells.
        components: D, at most C; of these the first B * h * w - 1 can be other than zero.
    """
    batch, channels, height, width = features.shape
    cells = features.detach().cpu().double().permute(0, 2, 3, 1).reshape(-1, channels)
    mean = cells.mean(0)
    centered = cells - mean
    _, directions = torch.linalg.eigh(centered.T @ centered)  # ascending
    basis = directions.flip(1)[:, :components]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    basis = torch.where(largest < 0, -basis, basis)
    exist = torch.arange(components) < batch * height * width - 1
    return PrincipalComponents(
        mean.to(features.device, torch.float32), (basis * exist).to(features.device, torch.float32)
    )
