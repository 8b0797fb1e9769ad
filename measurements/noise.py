"""J&F of `compact` for each mode and size of the noise ensemble.

    python -m measurements.noise --data DAVIS [--frames 30] [--sequence NAME ...]

Each draw passes through the network once and enters all ensembles that contain it: 20 passes per frame give the eleven
rows. The mask of frame 0 is given; frames 1 to the last but one are scored (DAVIS semi-supervised rules).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from measurements.common import add_davis_options, j_and_f, parser_of, read_images, read_truth
from propagate.features.compact.compact import SPACE_TO_DEPTH, CompactDiffusion
from propagate.features.diffusion.core import Noise, linear_alphas_cumprod
from propagate.labels import codec_for
from propagate.propagation.propagator import LabelPropagator
from propagate.settings import load_settings

SIZES = (1, 2, 4, 8)
Row = tuple[str, int]


def draws(shape: tuple[int, ...], seed: int, index: int) -> Iterator[tuple[Tensor, list[Row]]]:
    """Yield the draws of `Noise` for frame `index`, each with the rows whose mean it enters."""
    shared, fresh = Noise(max(SIZES), seed).draw(shape), Noise(max(SIZES), seed, "fresh").draw(shape, index)
    for number, noise in enumerate(shared):
        rows = [("shared", size) for size in SIZES if number < size]
        yield noise, rows + [("antithetic", size) for size in SIZES[1:] if 2 * number < size]
    for number, noise in enumerate(-shared[: max(SIZES) // 2]):
        yield noise, [("antithetic", size) for size in SIZES[1:] if 2 * number + 1 < size]
    for number, noise in enumerate(fresh):
        yield noise, [("fresh", size) for size in SIZES if number < size]


def ensembles(extractor: CompactDiffusion, image: Tensor, seed: int, index: int) -> dict[Row, Tensor]:
    """Return the features of one image, (3, h, w) in [0, 1], for each row."""
    clean = F.pixel_unshuffle(image[None] * 2 - 1, SPACE_TO_DEPTH)
    kept = float(linear_alphas_cumprod()[extractor.timestep])
    sums: dict[Row, Tensor] = {}
    for noise, rows in draws(tuple(clean.shape[1:]), seed, index):
        activation = extractor._activation(0, kept**0.5 * clean + (1 - kept) ** 0.5 * noise, finer=False)[0]
        for row in rows:
            sums[row] = sums[row] + activation if row in sums else activation
    return {row: total / row[1] for row, total in sums.items()}


@torch.no_grad()
def main() -> None:
    parser = parser_of(__doc__)
    add_davis_options(parser, 30, "all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    settings = load_settings("compact")
    extractor = CompactDiffusion(device="cpu")
    scores: defaultdict[Row, list[float]] = defaultdict(list)
    names = options.sequence or sorted(path.name for path in (options.data / "JPEGImages/480p").iterdir())
    for name in names:
        masks = read_truth(options.data, name, options.frames)
        codec = codec_for(masks[:1], extractor.stride, settings.labels)
        propagators: dict[Row, LabelPropagator] = {}
        frame_scores: defaultdict[Row, list[float]] = defaultdict(list)
        for frame, image in read_images(options.data, name, len(masks), extractor, settings):
            for row, features in ensembles(extractor, image, options.seed, frame.index).items():
                if frame.index == 0:
                    propagators[row] = LabelPropagator(**settings.propagation.model_dump(), anchors=1)
                    soft = codec.encode(masks[0], frame.size, tuple(features.shape[1:]))
                    propagators[row].anchor(features, soft)
                    continue
                predicted = codec.decode(propagators[row].step(features), frame).mask
                if frame.index < len(masks) - 1:
                    frame_scores[row].append(j_and_f(masks[frame.index], predicted))
        for row, values in frame_scores.items():
            scores[row].append(100 * float(np.mean(values)))
        print(name, {f"{mode} {size}": round(values[-1], 2) for (mode, size), values in scores.items()}, flush=True)
    print("| noise | " + " | ".join(map(str, SIZES)) + " |\n|---|" + "---|" * len(SIZES))
    for mode in ("shared", "fresh", "antithetic"):
        cells = (f"{np.mean(scores[mode, size]):.1f}" if (mode, size) in scores else "" for size in SIZES)
        print(f"| {mode} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
