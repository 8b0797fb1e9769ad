"""`rgb`: color patches, no weights. The shortest extractor, and the baseline to beat."""

from __future__ import annotations

import torch.nn.functional as F

from propagate.features.device import resolve_device
from propagate.features.extractor import Features, Images, Indices


class ColorPatches:
    """The 4 x 4 colors of every 8 x 8 cell at half resolution."""

    stride, channels, multiple = 8, 48, 8

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)

    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """Return the colors around middle grey, so that the cosine also distinguishes dark from bright."""
        return F.pixel_unshuffle(F.avg_pool2d(images.to(self.device) - 0.5, 2), 4)
