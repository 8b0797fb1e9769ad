"""`rgb`: color patches, no weights. The shortest extractor there can be, and the baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.features.device import resolve_device


class ColorPatches:
    """Every 8 x 8 cell is described by the 4 x 4 colors it holds at half resolution."""

    stride, channels, multiple = 8, 48, 8

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b 48 y x"]:
        """Colors around middle grey, so that the cosine also tells dark from bright."""
        return F.pixel_unshuffle(F.avg_pool2d(images.to(self.device) - 0.5, 2), 4)
