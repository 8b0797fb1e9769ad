"""The score of the rendered sample clip, with known truth in every frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
from numpy import ndarray

from propagate.app.running.outputs import Write
from propagate.files.documents import read_json
from propagate.formats import read_indexed_png, read_keypoints
from propagate.metrics import box_side, correct_keypoints, region_similarity
from propagate.types import Frame, Prediction

ALPHA = 0.1  # of PCK


class Score:
    """J and PCK of the rendered clip, collected while it runs.

    The given first frame does not count. A keypoint counts in the frames where it is visible, if it was visible in the
    first; its error is relative to the longer side of its object's visible box.
    """

    def __init__(self, folder: Path) -> None:
        objects = read_json(folder / "scene.json")["objects"]
        self._folder = folder
        self._joints = {entry["id"]: list(entry["keypoints"]) for entry in objects}
        self._names: dict[int, str] = {entry["id"]: entry["name"] for entry in objects}
        self._similarities: dict[int, list[float]] = {number: [] for number in self._names}
        self._correct: dict[int, list[bool]] = {number: [] for number in self._names}
        self._first = read_keypoints(folder / "keypoints.json", frame=0)

    def _true_ids(self, frame: Frame) -> ndarray:
        return read_indexed_png(self._folder / "masks" / f"{frame.index:05d}.png").ids

    @contextmanager
    def masks(self) -> Iterator[Write]:
        """Score predicted masks."""

        def write(frame: Frame, prediction: Prediction) -> None:
            if frame.index and prediction.mask is not None:
                truth = self._true_ids(frame)
                for number, values in self._similarities.items():
                    values.append(region_similarity(truth == number, prediction.mask.ids == number))

        yield write

    @contextmanager
    def keypoints(self) -> Iterator[Write]:
        """Score predicted keypoints."""

        def write(frame: Frame, prediction: Prediction) -> None:
            if not frame.index or prediction.keypoints is None:
                return
            ids = self._true_ids(frame)
            truth = read_keypoints(self._folder / "keypoints.json", frame=frame.index)
            for number, names in self._joints.items():
                chosen = [truth.names.index(name) for name in names]
                if counted := [i for i in chosen if truth.present[i] and self._first.present[i]]:
                    found, side = prediction.keypoints.positions[counted], box_side(ids == number)
                    correct = correct_keypoints(truth.positions[counted], found, alpha=ALPHA, side=side)
                    self._correct[number] += correct.tolist()

        yield write

    def rows(self) -> list[tuple[str, float, float]]:
        """Return (object, mean J, PCK) for each object, then for all; NaN where nothing counted."""
        rows = [(name, _mean([self._similarities[i]]), _mean([self._correct[i]])) for i, name in self._names.items()]
        return [*rows, ("all", _mean(self._similarities.values()), _mean(self._correct.values()))]


def _mean(values: Iterable[Sequence[float]]) -> float:
    flat = list(chain.from_iterable(values))
    return float(np.mean(flat)) if flat else float("nan")
