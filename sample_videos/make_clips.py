"""Cut `bunny/clip.mp4` and `pedestrians/clip.mp4` from their sources, and fill the drawn polygons into `mask.png`.

    python -m sample_videos.make_clips clip bunny PATH/TO/bigbuckbunny.mp4
    python -m sample_videos.make_clips clip pedestrians PATH/TO/vtest.avi
    python -m sample_videos.make_clips mask bunny
    python -m sample_videos.make_clips mask pedestrians

README.md in this folder lists the sources.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.formats import write_mask
from propagate.types import Mask
from sample_videos.clip_writer import write_clip

HERE = Path(__file__).resolve().parent
# Fractional bits of cv2.fillPoly's fixed-point coordinates: a precision of 1/16 pixel.
_SHIFT = 4


@dataclass(frozen=True)
class Cut:
    """A range of source frames and a filter for them."""

    # first, last: frame numbers in the source, from 0, inclusive
    first: int
    last: int
    filter: tuple[str, str]  # an FFmpeg filter and its arguments
    rate: Fraction  # frames per second of the source


CUTS = {
    "bunny": Cut(46, 103, ("scale", "640:360:flags=lanczos"), Fraction(25)),
    # Cropped, not scaled: the people keep their height of 140 pixels, and pixels are not resampled.
    "pedestrians": Cut(538, 585, ("crop", "640:480:64:96"), Fraction(10)),
}


def cut_frames(source: Path, cut: Cut) -> Iterator[av.VideoFrame]:
    """Decode `source` and yield the filtered frames of the cut, without a conversion to RGB."""
    with av.open(str(source)) as container:
        graph = av.filter.Graph()
        chain = (graph.add_buffer(template=container.streams.video[0]), graph.add(*cut.filter), graph.add("buffersink"))
        graph.link_nodes(*chain).configure()
        for index, frame in enumerate(container.decode(video=0)):
            if index > cut.last:
                return
            if index >= cut.first:
                graph.push(frame)
                yield graph.pull()


def fill_polygons(annotation: dict[str, Any]) -> UInt8[ndarray, "h w"]:
    """Return a mask with the polygons of an annotation filled with their object ids; 0 elsewhere.

    Args:
        annotation: `{"size": [width, height], "polygons": [{"id": 1, "points": [[x, y], ...]}, ...]}`; coordinates in
            pixels, pixel centers at integers. Later polygons cover earlier ones.
    """
    width, height = annotation["size"]
    mask = np.zeros((height, width), np.uint8)
    for polygon in annotation["polygons"]:
        points = np.round(np.array(polygon["points"], np.float64) * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(mask, [points], int(polygon["id"]), shift=_SHIFT)
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    clip = commands.add_parser("clip", help="cut a clip from its source")
    clip.add_argument("name", choices=CUTS)
    clip.add_argument("source", type=Path)
    clip.add_argument("--crf", type=int, default=18, help="libx264's quality, lower is better (default: 18)")
    mask = commands.add_parser("mask", help="fill the polygons of a clip into its mask")
    mask.add_argument("name", choices=CUTS)
    arguments = parser.parse_args()
    folder = HERE / arguments.name
    if arguments.command == "clip":
        cut = CUTS[arguments.name]
        count = write_clip(folder / "clip.mp4", cut_frames(arguments.source, cut), cut.rate, arguments.crf)
        print(f"{folder / 'clip.mp4'}: {count} frames")
    else:
        write_mask(folder / "mask.png", Mask(fill_polygons(json.loads((folder / "polygons.json").read_text()))))
        print(folder / "mask.png")


if __name__ == "__main__":
    main()
