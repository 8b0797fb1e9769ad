"""The commands that are killed, on tiny clips, and the files they write."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from propagate.formats import VideoWriter, write_mask
from propagate.types import Mask
from tests.app.conftest import picture, square_ids

FRAMES = 12
_TIMED = ("run.json", "summary.json", "summary.csv", "report.html", ".evaluation.json")  # times, dates, commands


@dataclass(frozen=True)
class Scene:
    """A command without its output folder, and what makes the second run accept what the first one left."""

    name: str
    arguments: tuple[str, ...]
    again: str

    def command(self, output: Path, *, again: bool = False) -> list[str]:
        """The whole command line."""
        line = [sys.executable, "-m", "propagate", *self.arguments, "-o", str(output), "--device", "cpu"]
        return [*line, self.again] if again else line


def make_scenes(folder: Path) -> tuple[Scene, ...]:
    """Write clips, labels and a data set, and return the commands that use them."""
    pictures = [picture(index % 8) for index in range(FRAMES)]
    with VideoWriter(folder / "clip.mp4", rate=10) as video:
        for pixels in pictures:
            video.write(pixels)
    write_mask(folder / "mask.png", Mask(square_ids(0)))
    (folder / "points.csv").write_text("name,x,y\nleft,12,20\nmiddle,20,28\n")
    tree = folder / "DAVIS"
    for clip in ("one", "two"):
        frames, masks = tree / "JPEGImages" / "480p" / clip, tree / "Annotations" / "480p" / clip
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(6):
            Image.fromarray(picture(index)).save(frames / f"{index:05d}.jpg", quality=95)
            write_mask(masks / f"{index:05d}.png", Mask(square_ids(index)))
    (tree / "ImageSets" / "2017").mkdir(parents=True)
    (tree / "ImageSets" / "2017" / "val.txt").write_text("one\ntwo\n")
    small = ("--config", "rgb", "--set", "video.short_side=64")
    data = ("davis", "--data", str(tree), "--year", "2017", "--sequence", "one", "--sequence", "two")
    label = (str(folder / "clip.mp4"), "-m", str(folder / "mask.png"))
    points = (str(folder / "clip.mp4"), "-k", str(folder / "points.csv"))
    return (
        Scene("segment", ("segment", *label, *small), "--overwrite"),
        Scene("track", ("track", *points, *small), "--overwrite"),
        Scene("evaluate", ("evaluate", *data, *small, "--no-report"), "--resume"),
        Scene("sweep", ("sweep", *data, *small, "--set", "propagation.top_k=1,5"), "--resume"),
    )


def half_files(folder: Path) -> list[str]:
    """The files under a final name that cannot be read to their end."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in inside):
            try:
                _read(path)
            except Exception as error:
                found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".png":
        np.asarray(Image.open(path))
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1
    elif path.suffix == ".mp4":
        with av.open(str(path.absolute())) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes; of those that hold times only that it is there."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {
        path.relative_to(folder).as_posix(): b"" if path.name in _TIMED else path.read_bytes() for path in sorted(files)
    }
