"""J&F on DAVIS-2016 sequences: `python -m training.score --data DAVIS [--config compact] [--set a.b=c] [--frames 40]`.

The mask of frame 0 is given, frames 1 to the last but one are scored, a sequence's J and F are means over its frames
(DAVIS semi-supervised protocol, one object). Settings may be tuned on the choosing half only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from propagate.features import build_extractor
from propagate.formats import read_indexed_png
from propagate.metrics import boundary_accuracy, region_similarity
from propagate.pipeline import track
from propagate.settings import load_settings
from propagate.types import Mask
from propagate.video import open_video

HALVES = {
    "choosing": ["camel", "drift-straight", "horsejump-high", "libby", "parkour"],
    "confirming": ["blackswan", "bmx-trees", "car-shadow", "dance-twirl", "dog"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--config", default="compact")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    parser.add_argument("--half", choices=sorted(HALVES), action="append")
    parser.add_argument("--sequence", action="append")
    parser.add_argument("--frames", type=int, help="only this many of each sequence")
    options = parser.parse_args()

    settings = load_settings(options.config, options.overrides).settings
    extractor = build_extractor(settings.features.name, **settings.features.options)
    halves = {"chosen": options.sequence} if options.sequence else {h: HALVES[h] for h in options.half or HALVES}
    for half, sequences in halves.items():
        scores = []
        for sequence in sequences:
            frames = open_video(options.data / "JPEGImages/480p" / sequence, to_frame=options.frames)
            truths = sorted((options.data / "Annotations/480p" / sequence).glob("*.png"))[: options.frames]
            masks = [Mask((read_indexed_png(path).ids > 0).astype(np.uint8)) for path in truths]
            predictions = track(frames, masks[0], extractor=extractor, settings=settings)
            pairs = [
                (truth.ids > 0, prediction.label.ids > 0)  # type: ignore[union-attr]
                for truth, prediction in zip(masks, predictions, strict=True)
            ][1:-1]
            j = float(np.mean([region_similarity(*pair) for pair in pairs]))
            f = float(np.mean([boundary_accuracy(*pair) for pair in pairs]))
            scores.append((j, f))
            print(f"{sequence:16} J {100 * j:5.1f}  F {100 * f:5.1f}  J&F {50 * (j + f):5.1f}", flush=True)
        j, f = np.mean(scores, axis=0)
        print(f"{half + ' mean':16} J {100 * j:5.1f}  F {100 * f:5.1f}  J&F {50 * (j + f):5.1f}", flush=True)


if __name__ == "__main__":
    main()
