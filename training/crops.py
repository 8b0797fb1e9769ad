"""Samples for the denoising stage: square crops of photographs."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset

from training.photos import Photo


def random_crop(photo: Photo, size: int, rng: np.random.Generator, widest: float = 2.8) -> Photo:
    """Return a square crop with a side of 1 to `widest` times `size`, resized to (size, size, 3), flipped at random."""
    height, width = photo.shape[:2]
    side = int(min(rng.uniform(1, widest) * size, height, width))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = photo[top : top + side, left : left + side]
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


class CropBatches(IterableDataset[torch.Tensor]):
    """Endless batches of crops, (batch, 3, size, size) uint8. Batch n depends only on the seed and n."""

    def __init__(self, photos: list[Photo], *, batch: int, size: int, seed: int, start: int) -> None:
        self.photos, self.batch, self.size, self.seed, self.start = photos, batch, size, seed, start

    def __iter__(self) -> Iterator[torch.Tensor]:
        cv2.setNumThreads(0)
        step = self.start
        while True:
            rng = np.random.default_rng((self.seed, step))
            chosen = rng.integers(len(self.photos), size=self.batch)
            crops = np.stack([random_crop(self.photos[index], self.size, rng) for index in chosen])
            yield torch.from_numpy(crops).permute(0, 3, 1, 2)
            step += 1
