"""What the noise is worth: J&F of `compact` for every mode and size of the ensemble.

    python -m measurements.noise --data DAVIS [--frames 30] [--sequence NAME ...]

Every draw is taken through the network once and enters all the ensembles that it belongs to: 20 passes per frame give
the eleven rows. The mask of frame 0 is given; frames 1 to the last but one are scored (DAVIS semi-supervised rules).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from propagate.features.compact.compact import SPACE_TO_DEPTH, CompactDiffusion
from propagate.features.diffusion.core import Noise, linear_alphas_cumprod
from propagate.formats import read_indexed_png
from propagate.geometry import resize_frame, to_tensor, working_size
from propagate.labels import codec_for
from propagate.metrics import boundary_accuracy, region_similarity
from propagate.propagation.propagator import LabelPropagator
from propagate.settings import load_settings
from propagate.types import Mask
from propagate.video import open_video

SIZES = (1, 2, 4, 8)
Row = tuple[str, int]


def draws(shape: tuple[int, ...], seed: int, index: int) -> Iterator[tuple[Tensor, list[Row]]]:
    """Every draw that frame `index` needs, with the rows whose mean it enters; the draws are those of `Noise`."""
    shared, fresh = Noise(max(SIZES), seed).draw(shape), Noise(max(SIZES), seed, "fresh").draw(shape, index)
    for number, noise in enumerate(shared):
        rows = [("shared", size) for size in SIZES if number < size]
        yield noise, rows + [("antithetic", size) for size in SIZES[1:] if 2 * number < size]
    for number, noise in enumerate(-shared[: max(SIZES) // 2]):
        yield noise, [("antithetic", size) for size in SIZES[1:] if 2 * number + 1 < size]
    for number, noise in enumerate(fresh):
        yield noise, [("fresh", size) for size in SIZES if number < size]


def ensembles(extractor: CompactDiffusion, image: Tensor, seed: int, index: int) -> dict[Row, Tensor]:
    """The features of one frame, (3, h, w) in [0, 1], for every row."""
    clean = F.pixel_unshuffle(image[None] * 2 - 1, SPACE_TO_DEPTH)
    kept = float(linear_alphas_cumprod()[extractor.timestep])
    sums: dict[Row, Tensor] = {}
    for noise, rows in draws(tuple(clean.shape[1:]), seed, index):
        activation = extractor._activation(kept**0.5 * clean + (1 - kept) ** 0.5 * noise)[0]
        for row in rows:
            sums[row] = sums[row] + activation if row in sums else activation
    return {row: total / row[1] for row, total in sums.items()}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--sequence", action="append", help="default: all")
    parser.add_argument("--frames", type=int, default=30, help="the first so many of each sequence")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    settings = load_settings("compact")
    extractor = CompactDiffusion(device="cpu")
    scores: defaultdict[Row, list[float]] = defaultdict(list)
    names = options.sequence or sorted(path.name for path in (options.data / "JPEGImages/480p").iterdir())
    for name in names:
        truths = sorted((options.data / "Annotations/480p" / name).glob("*.png"))[: options.frames]
        masks = [Mask((read_indexed_png(path).ids > 0).astype(np.uint8)) for path in truths]
        codec = codec_for(masks[:1], extractor.stride, settings.labels)
        propagators: dict[Row, LabelPropagator] = {}
        frame_scores: defaultdict[Row, list[float]] = defaultdict(list)
        for frame in open_video(options.data / "JPEGImages/480p" / name, to_frame=len(masks)):
            size = working_size(frame.size, multiple=extractor.multiple, **settings.video.sizing)
            image = to_tensor(resize_frame(frame.pixels, size))
            for row, features in ensembles(extractor, image, options.seed, frame.index).items():
                if frame.index == 0:
                    propagators[row] = LabelPropagator(**settings.propagation.model_dump(), anchors=1)
                    soft = codec.encode(masks[0], frame.size, tuple(features.shape[1:]))
                    propagators[row].anchor(features, soft)
                    continue
                predicted = codec.decode(propagators[row].step(features), frame).mask
                if frame.index < len(masks) - 1:
                    pair = masks[frame.index].ids > 0, predicted.ids > 0
                    frame_scores[row].append((region_similarity(*pair) + boundary_accuracy(*pair)) / 2)
        for row, values in frame_scores.items():
            scores[row].append(100 * float(np.mean(values)))
        print(name, {f"{mode} {size}": round(values[-1], 2) for (mode, size), values in scores.items()}, flush=True)
    print("| noise | " + " | ".join(map(str, SIZES)) + " |\n|---|" + "---|" * len(SIZES))
    for mode in ("shared", "fresh", "antithetic"):
        cells = (f"{np.mean(scores[mode, size]):.1f}" if (mode, size) in scores else "" for size in SIZES)
        print(f"| {mode} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
