"""What a finer label grid and a longer memory are worth: J&F, and CPU seconds of the transfer, with `compact`.

    python -m measurements.finer --data DAVIS [--frames 40] [--sequence NAME ...] [--only TEXT ...] [--set a.b=c ...]

Every frame goes through the network once and then through all rows, each with a propagator of its own, so that the
times of all rows meet the same load. "Plain" is the transfer on the finer grid itself, with the window's radius in
finer cells: what coarse to fine is to come near to. The mask of frame 0 is given; frames 1 to the last but one are
scored (DAVIS semi-supervised rules). Where no sequence is named, those are taken on which settings are chosen.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from propagate.features import build_extractor
from propagate.features.finer import BothMaps, both_maps
from propagate.formats import read_indexed_png
from propagate.geometry import resize_frame, to_tensor, working_size
from propagate.labels import LabelCodec, codec_for
from propagate.metrics import boundary_accuracy, region_similarity
from propagate.propagation.propagator import LabelPropagator
from propagate.settings import Settings, load_settings
from propagate.types import Frame, Mask
from propagate.video import open_video

CHOOSING = ["camel", "drift-straight", "horsejump-high", "libby", "parkour"]
OLDER = {"n_older": 5, "older_every": 5}
Maps = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One way of transferring.

    Attributes:
        name: for the table.
        kind: on which of the maps.
        options: of the propagator, beside the settings'.
    """

    name: str
    kind: Literal["coarse", "coarse to fine", "plain"] = "coarse"
    options: dict[str, Any] = field(default_factory=dict)

    def maps(self, both: Maps) -> list[Tensor]:
        """Those that the propagator is given: what is searched, then what is compared."""
        return {"coarse": [both[0]], "coarse to fine": list(both), "plain": [both[1]]}[self.kind]

    def propagator(self, settings: Settings, factor: int) -> LabelPropagator:
        options = settings.propagation.model_dump() | {"finer": self.kind == "coarse to fine"} | self.options
        if self.kind == "plain":
            options["radius"] *= factor
        return LabelPropagator(**options)


def rows() -> list[Row]:
    """All rows."""
    searches = [(found, 5) for found in (5, 10, 15)] + [(10, 10), (10, 15), (10, 20), (15, 15)]
    return [
        Row("the features' grid"),
        *(
            Row(
                f"coarse to fine, {found} found, top {top_k}",
                "coarse to fine",
                {"finer_from": found, "top_k": top_k},
            )
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
            pair = truth.ids > 0, predicted.ids > 0
            self.scores.append((region_similarity(*pair) + boundary_accuracy(*pair)) / 2)


def features(
    data: Path, name: str, frames: int, extractor: BothMaps, settings: Settings
) -> Iterator[tuple[Frame, Maps]]:
    """Every frame with both maps."""
    for frame in open_video(data / "JPEGImages/480p" / name, to_frame=frames):
        size = working_size(frame.size, multiple=extractor.multiple, **settings.video.sizing)
        image = to_tensor(resize_frame(frame.pixels, size))
        yield frame, extractor.split(extractor(image[None], [frame.index])[0])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--sequence", action="append", help=f"default: {', '.join(CHOOSING)}")
    parser.add_argument("--frames", type=int, default=40, help="the first so many of each sequence")
    parser.add_argument("--only", action="append", default=[], help="rows whose name has this text; default: all")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    options = parser.parse_args()

    settings = load_settings("compact", options.overrides)
    extractor = both_maps(build_extractor("compact", **settings.features.options))
    chosen = [row for row in rows() if not options.only or any(text in row.name for text in options.only)]
    scores, seconds = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for name in options.sequence or CHOOSING:
        paths = sorted((options.data / "Annotations/480p" / name).glob("*.png"))[: options.frames]
        truths = [Mask((read_indexed_png(path).ids > 0).astype(np.uint8)) for path in paths]
        codec = codec_for(truths[:1], extractor.finer_stride, settings.labels)
        runs = {row.name: Run(row, settings, extractor.factor) for row in chosen}
        for frame, both in features(options.data, name, len(truths), extractor, settings):
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
