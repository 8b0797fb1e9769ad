"""J&F and CPU seconds of the transfer with finer label grids and longer memories, with `compact`.

    python -m measurements.finer --data DAVIS [--frames 40] [--sequence NAME ...] [--only TEXT ...] [--set a.b=c ...]

Each frame passes through the network once and then through all rows, each with its own propagator, so all rows are
timed under the same load. "Plain" transfers on the finer grid itself, with the radius of the window in finer cells; it
is the reference for coarse to fine. The mask of frame 0 is given; frames 1 to the last but one are scored (DAVIS
semi-supervised rules). The default sequences are those on which settings are selected.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from measurements.common import add_davis_options, j_and_f, parser_of, read_images, read_truth
from propagate.features import build_extractor
from propagate.features.finer import both_maps
from propagate.labels import LabelCodec, codec_for
from propagate.propagation.propagator import LabelPropagator
from propagate.settings import Settings, load_settings
from propagate.types import Frame, Mask

SELECTION = ["camel", "drift-straight", "horsejump-high", "libby", "parkour"]
OLDER = {"n_older": 5, "older_every": 5}
Maps = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One kind of transfer, with options of the propagator that override the settings."""

    name: str
    kind: Literal["coarse", "coarse to fine", "plain"] = "coarse"
    options: dict[str, Any] = field(default_factory=dict)

    def maps(self, both: Maps) -> list[Tensor]:
        """Return the propagator's inputs: the map to search, then the map to compare."""
        return {"coarse": [both[0]], "coarse to fine": list(both), "plain": [both[1]]}[self.kind]

    def propagator(self, settings: Settings, factor: int) -> LabelPropagator:
        options = settings.propagation.model_dump() | {"finer": self.kind == "coarse to fine"} | self.options
        if self.kind == "plain":
            options["radius"] *= factor
        return LabelPropagator(**options)


def rows() -> list[Row]:
    searches = [(found, 5) for found in (5, 10, 15)] + [(10, 10), (10, 15), (10, 20), (15, 15)]
    return [
        Row("the features' grid"),
        *(
            Row(f"coarse to fine, {found} found, top {top_k}", "coarse to fine", {"finer_from": found, "top_k": top_k})
            for found, top_k in searches
        ),
        *(Row(f"plain, top {top_k}", "plain", {"top_k": top_k}) for top_k in (5, 15)),
        Row("the features' grid, 5 older frames", options=OLDER),
        Row("coarse to fine, 5 older frames", "coarse to fine", OLDER),
    ]


class Run:
    """A row on one sequence."""

    def __init__(self, row: Row, settings: Settings, factor: int) -> None:
        self._row, self._propagator = row, row.propagator(settings, factor)
        self.scores: list[float] = []
        self.seconds: list[float] = []

    def start(self, both: Maps, codec: LabelCodec[Any], mask: Mask) -> None:
        searched, *finer = self._row.maps(both)
        _, height, width = (finer[0] if finer else searched).shape
        self._propagator.anchor(searched, codec.encode(mask, mask.size, (height, width)), *finer)

    def step(self, both: Maps, codec: LabelCodec[Any], frame: Frame, truth: Mask | None) -> None:
        begin = time.process_time()
        soft = self._propagator.step(*self._row.maps(both))
        self.seconds.append(time.process_time() - begin)
        predicted = codec.decode(soft, frame).mask
        if truth is not None and predicted is not None:
            self.scores.append(j_and_f(truth, predicted))


@torch.no_grad()
def main() -> None:
    parser = parser_of(__doc__)
    add_davis_options(parser, 40, ", ".join(SELECTION))
    parser.add_argument("--only", action="append", default=[], help="rows whose names contain this text; default: all")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    options = parser.parse_args()

    settings = load_settings("compact", options.overrides)
    extractor = both_maps(build_extractor("compact", **settings.features.options))
    chosen = [row for row in rows() if not options.only or any(text in row.name for text in options.only)]
    scores, seconds = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for name in options.sequence or SELECTION:
        truths = read_truth(options.data, name, options.frames)
        codec = codec_for(truths[:1], extractor.finer_stride, settings.labels)
        runs = {row.name: Run(row, settings, extractor.factor) for row in chosen}
        for frame, image in read_images(options.data, name, len(truths), extractor, settings):
            both = extractor.split(extractor(image[None], [frame.index])[0])
            for run in runs.values():
                if frame.index == 0:
                    run.start(both, codec, truths[0])
                else:
                    run.step(both, codec, frame, truths[frame.index] if frame.index < len(truths) - 1 else None)
        for row_name, run in runs.items():
            scores[row_name].append(100 * float(np.mean(run.scores)))
            seconds[row_name].append(float(np.median(run.seconds)))
            print(f"{name}: {row_name}: {scores[row_name][-1]:.2f}, {seconds[row_name][-1]:.3f} s", flush=True)
    print("| | J&F | CPU seconds per frame | times the first row |\n|---|---|---|---|")
    for row in chosen:
        mean, first = np.mean(seconds[row.name]), np.mean(seconds[chosen[0].name])
        print(f"| {row.name} | {np.mean(scores[row.name]):.1f} | {mean:.3f} | {mean / first:.1f} |")


if __name__ == "__main__":
    main()
