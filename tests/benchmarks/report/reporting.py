"""A data set of flat pictures, and what methods might be worth on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from propagate.benchmarks.benchmark import Clip, Curve, Published, Scores, Write
from propagate.benchmarks.report.summary import MethodResult
from propagate.errors import InputError
from propagate.types import Frame, Mask

CLIPS = ("dog", "swan", "a b_$1<i>")
FRAMES = 31
PREDICTION, TRUTH, DIFFERENCE = (200, 30, 30), (30, 200, 30), (30, 30, 200)
COLORS = {"hit": (1, 2, 3), "missed": (250, 128, 0)}


@dataclass(frozen=True)
class FlatPictures:
    """Clips of which only single frames can be looked at, in one color each; of "swan" not even those."""

    clips: tuple[Clip, ...] = tuple(Clip(name, tuple(Path(f"{i:05d}.png") for i in range(FRAMES))) for name in CLIPS)
    published: tuple[Published, ...] = ()
    remarks: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    difference_colors: Mapping[str, tuple[int, int, int]] = field(default_factory=lambda: COLORS)
    asked: list[tuple[str, Path, int]] = field(default_factory=list)
    name: str = "flat-1"
    title: str = "Flat-1 val, semi-supervised"

    def frames(self, clip: Clip) -> Iterator[Frame]:
        raise NotImplementedError

    def label(self, clip: Clip) -> Mask:
        raise NotImplementedError

    def writer(self, clip: Clip, folder: Path) -> AbstractContextManager[Write]:
        raise NotImplementedError

    def score(self, results: Path) -> Scores:
        raise NotImplementedError

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[np.ndarray, ...]:
        self.asked.append((clip.name, results, frame))
        if clip.name == "swan":
            raise InputError("swan/00007.png cannot be read.", "Write it again.")
        return tuple(np.full((90, 1200, 3), color, np.uint8) for color in (PREDICTION, TRUTH, DIFFERENCE))


def method(name: str, levels: dict[str, float], **changes: object) -> MethodResult:
    """A result whose curves lie at the clip's level, J above F by 0.02, with one dip in frame 7."""
    curves = []
    for clip, level in levels.items():
        values = np.full(FRAMES - 2, level)
        values[6] = level / 2
        curves.append(Curve(clip, "1", tuple(range(1, FRAMES - 1)), {"J": values + 0.01, "F": values - 0.01}))
    clips = {clip: {"J&F": level, "J-Mean": level + 0.01, "F-Mean": level - 0.01} for clip, level in levels.items()}
    totals = {metric: float(np.mean([values[metric] for values in clips.values()])) for metric in ("J&F", "J-Mean")}
    given: dict[str, object] = {
        "settings": {"features.name": name, "propagation.top_k": 5},
        "origins": {"features.name": f"preset {name}", "propagation.top_k": "default"},
        "settings_hash": "0123abcd",
        "scores": Scores(totals, clips, tuple(curves), ()),
        "results": Path("results") / name,
        "frames_per_second": 12.5,
        "peak_memory": 3 * 2**29,
    }
    return MethodResult(name, **(given | changes))  # type: ignore[arg-type]
