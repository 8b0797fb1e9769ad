"""Cut-outs for the training scenes: parts of photographs cut along edges, pictures with transparency, and blobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from training.photos import Photo, load_photos


@dataclass(frozen=True)
class Cutout:
    """A picture, (h, w, 3) uint8, and its opacity, (h, w) uint8, 255 inside."""

    picture: Photo
    alpha: Photo


def segment_cutouts(photos: list[Photo], *, per_photo: int = 4, seed: int = 0) -> Iterator[Cutout]:
    """Yield parts of photographs, cut along image edges (Felzenszwalb and Huttenlocher, IJCV 2004).

    A part is a region, at one of two scales, or the union of two neighboring regions. It covers 4 to 40 % of the
    picture and does not lie along its border.
    """
    rng = np.random.default_rng(seed)
    for photo in photos:
        yield from _segments(photo, per_photo, rng)


def _segments(photo: Photo, most: int, rng: np.random.Generator) -> list[Cutout]:
    height, width = photo.shape[:2]
    small = cv2.resize(photo, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    found: list[NDArray[np.bool_]] = []
    for scale in (120, 400):
        labels = felzenszwalb(small, scale=scale, sigma=0.8, min_size=60)
        regions = [labels == label for label in range(labels.max() + 1)]
        regions = [region for region in regions if region.mean() > 0.015]
        for region in list(regions):
            grown = cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            beside = [other for other in regions if other is not region and (grown & other).any()]
            if beside:
                regions.append(region | beside[int(rng.integers(len(beside)))])
        found += [region for region in regions if 0.04 < region.mean() < 0.4 and _rim(region) < 0.2]
    rng.shuffle(found)
    return [_cut(photo, region) for region in found[:most]]


def _rim(region: NDArray[np.bool_]) -> float:
    """Return the share of the picture's border that belongs to the region."""
    rim = np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]])
    return float(rim.mean())


def _cut(photo: Photo, region: NDArray[np.bool_]) -> Cutout:
    height, width = photo.shape[:2]
    closed = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(closed), outlines, -1, 255, cv2.FILLED)  # objects have no holes
    alpha = cv2.resize(filled, (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 1.5)
    alpha = np.clip((alpha.astype(np.float32) - 127.5) * 3 + 127.5, 0, 255).astype(np.uint8)
    ys, xs = np.nonzero(alpha)
    box = slice(max(ys.min() - 1, 0), ys.max() + 2), slice(max(xs.min() - 1, 0), xs.max() + 2)
    return Cutout(np.ascontiguousarray(photo[box]), np.ascontiguousarray(alpha[box]))


def read_cutouts(folder: Path, long_side: int = 256) -> list[Cutout]:
    """Read every .png of a folder as a cut-out, cropped to its opaque part.

    Raises:
        OSError: a file is not a picture with transparency.
    """
    cutouts = []
    for path in sorted(folder.glob("*.png")):
        bgra = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4:
            raise OSError(f"{path} is no picture with transparency")
        scale = long_side / max(bgra.shape[:2])
        if scale < 1:
            bgra = cv2.resize(bgra, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        ys, xs = np.nonzero(bgra[..., 3])
        bgra = bgra[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        cutouts.append(Cutout(np.ascontiguousarray(bgra[..., 2::-1]), np.ascontiguousarray(bgra[..., 3])))
    return cutouts


def blob(shape: tuple[int, int], rng: np.random.Generator) -> Photo:
    """Return a random closed shape in the center of a picture of this size, (H, W) uint8, 255 inside."""
    height, width = shape
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angles)
    for order in range(1, 6):
        radius += rng.normal(0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.25, 1.9) * 0.26 * min(height, width)
    squeeze = rng.uniform(0.6, 1.0, 2)
    outline = np.stack(
        [width / 2 + squeeze[0] * radius * np.cos(angles), height / 2 + squeeze[1] * radius * np.sin(angles)], 1
    )
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], (255,), lineType=cv2.LINE_AA)
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description="Cut parts out of photographs: python -m training.cutouts")
    parser.add_argument("--photos", type=Path, required=True, help="folder of .jpg photographs")
    parser.add_argument("--out", type=Path, required=True, help="write one .png with transparency per part here")
    parser.add_argument("--per-photo", type=int, default=3, help="maximum number of parts per photograph")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for number, cutout in enumerate(segment_cutouts(load_photos(options.photos), per_photo=options.per_photo)):
        bgra = np.concatenate([cutout.picture[..., ::-1], cutout.alpha[..., None]], -1)
        cv2.imwrite(str(options.out / f"{number:05}.png"), bgra)


if __name__ == "__main__":
    main()
