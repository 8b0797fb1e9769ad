"""A tiny data set on disk: a textured square that moves 2 pixels to the right per frame, in clips of six frames."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from propagate.benchmarks.benchmark import Clip, Curve, Published, Scores, Table, Write
from propagate.benchmarks.running.runner import Outcome, Task
from propagate.errors import InputError
from propagate.formats import read_indexed_png, write_mask
from propagate.metrics import region_similarity
from propagate.types import Frame, Mask, Prediction

HEIGHT, WIDTH, FRAMES, STEP = 48, 96, 6, 2


def square_ids(index: int) -> np.ndarray:
    """(H, W) uint8: objects 3 and, below it, 7, of frame `index`."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    left = 16 + STEP * index
    ids[8:24, left : left + 24], ids[24:40, left : left + 24] = 3, 7
    return ids


def picture(index: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 of frame `index`: smooth textures, dark ground and bright objects."""
    blocks = np.random.default_rng(seed).integers(0, 80, (2, HEIGHT // 4, WIDTH // 4, 3))
    ground, objects = (
        np.asarray(Image.fromarray(layer.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        for layer in blocks
    )
    inside = square_ids(index)[..., None] > 0
    return np.where(inside, np.roll(objects + np.uint8(150), STEP * index, axis=1), ground)


@dataclass(frozen=True)
class Squares:
    """The data set. What lies in a clip's folder beside its pictures says how it goes wrong.

    "dies": the process that reads frame 3 is killed. "stops": it is interrupted there, as by Ctrl-C.
    """

    clips: tuple[Clip, ...]
    name: str = "squares"
    title: str = "Squares, all of them"
    published: tuple[Published, ...] = (Published("Theirs", {"J": 0.5}, "a paper"),)
    remarks: tuple[str, ...] = ("Squares are easy.",)
    settings: tuple[str, ...] = ("video.short_side=48",)
    difference_colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def frames(self, clip: Clip) -> Iterator[Frame]:
        for index, path in enumerate(clip.pictures):
            if index == 3 and (path.parent / "dies").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if index == 3 and (path.parent / "stops").exists():
                raise KeyboardInterrupt
            try:
                pixels = np.asarray(Image.open(path))
            except OSError as error:
                raise InputError(f"{path} cannot be read.", "Replace it.") from error
            yield Frame(pixels, index, index / 10)

    def label(self, clip: Clip) -> Mask:
        return Mask(square_ids(0))

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        def write(frame: Frame, prediction: Prediction) -> None:
            write_mask(folder / f"{frame.index:05d}.png", prediction.label)

        yield write

    def score(self, results: Path) -> Scores:
        clips, curves, problems = {}, [], {}
        for clip in self.clips:
            paths = [results / clip.name / f"{index:05d}.png" for index in range(FRAMES)]
            if not all(path.exists() for path in paths):
                problems[clip.name] = ("frames are missing.",)
                continue
            ids = [read_indexed_png(path).ids for path in paths]
            values = np.array([region_similarity(square_ids(i) > 0, ids[i] > 0) for i in range(1, FRAMES)])
            curves.append(Curve(clip.name, "1", tuple(range(1, FRAMES)), {"J": values}))
            clips[clip.name] = {"J": float(values.mean())}
        if not clips:
            raise InputError(f"Nothing in {results} could be scored.", "Give other results.")
        total = float(np.mean([values["J"] for values in clips.values()]))
        rows = tuple((name, f"{values['J']:.6f}") for name, values in clips.items())
        table = Table("scores.csv", ("clip", "J"), (*rows, ("all, of each", f"{total:.6f}")))
        return Scores({"J": total}, clips, tuple(curves), (table,), problems, ("Scored.",))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[np.ndarray, ...]:
        found = read_indexed_png(results / clip.name / f"{frame:05d}.png").ids
        layers = (found > 0, square_ids(frame) > 0, (found > 0) != (square_ids(frame) > 0))
        return tuple(np.repeat(layer[..., None].astype(np.uint8) * 255, 3, axis=2) for layer in layers)


def make_squares(root: Path, names: tuple[str, ...] = ("one", "two", "three")) -> Squares:
    """Write the pictures of clips with these names (which may have folders in them)."""
    clips = []
    for seed, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True)
        pictures = tuple(folder / f"{index:05d}.png" for index in range(FRAMES))
        for index, path in enumerate(pictures):
            Image.fromarray(picture(index, seed)).save(path)
        clips.append(Clip(name, pictures))
    return Squares(tuple(clips))


class Watching:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.frames: dict[str, int] = {}
        self.outcomes: list[Outcome] = []

    def started(self, task: Task) -> None:
        self.begun.append(task.clip.name)

    def frame(self, task: Task) -> None:
        self.frames[task.clip.name] = self.frames.get(task.clip.name, 0) + 1

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
