"""The score of the rendered sample clip, whose truth is known in every frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from propagate.app.running.outputs import Write
from propagate.files.documents import read_json
from propagate.formats import read_indexed_png, read_keypoints
from propagate.metrics import box_side, correct_keypoints, region_similarity
from propagate.types import Frame, Prediction

ALPHA = 0.1  # of PCK


class Score:
    """J and PCK of the rendered clip, collected while it is carried.

    The first frame, which was given, does not count. A keypoint counts in the frames in which it is visible, if it
    was visible in the first; its error is measured by the longer side of its object's visible box.
    """

    def __init__(self, folder: Path) -> None:
        scene = read_json(folder / "scene.json")
        self._folder = folder
        self._joints = {entry["id"]: list(entry["keypoints"]) for entry in scene["objects"]}
        self.names: dict[int, str] = {entry["id"]: entry["name"] for entry in scene["objects"]}
        self.similarities: dict[int, list[float]] = {number: [] for number in self.names}
        self.correct: dict[int, list[bool]] = {number: [] for number in self.names}
        self._first = read_keypoints(folder / "keypoints.json", frame=0)

    @contextmanager
    def masks(self) -> Iterator[Write]:
        """Takes in predicted masks."""

        def write(frame: Frame, prediction: Prediction) -> None:
            if frame.index and prediction.mask is not None:
                truth = read_indexed_png(self._folder / "masks" / f"{frame.index:05d}.png").ids
                for number, values in self.similarities.items():
                    values.append(region_similarity(truth == number, prediction.mask.ids == number))

        yield write

    @contextmanager
    def keypoints(self) -> Iterator[Write]:
        """Takes in predicted keypoints."""

        def write(frame: Frame, prediction: Prediction) -> None:
            if not frame.index or prediction.keypoints is None:
                return
            masks = read_indexed_png(self._folder / "masks" / f"{frame.index:05d}.png").ids
            truth = read_keypoints(self._folder / "keypoints.json", frame=frame.index)
            for number, names in self._joints.items():
                chosen = [truth.names.index(name) for name in names]
                counted = [i for i in chosen if truth.present[i] and self._first.present[i]]
                if counted:
                    self.correct[number] += correct_keypoints(
                        truth.positions[counted],
                        prediction.keypoints.positions[counted],
                        alpha=ALPHA,
                        side=box_side(masks == number),
                    ).tolist()

        yield write

    def rows(self) -> list[tuple[str, float, float]]:
        """(object, mean J, PCK) for each object and last for all; NaN where nothing was counted."""
        rows = [
            (name, _mean(self.similarities[number]), _mean(self.correct[number])) for number, name in self.names.items()
        ]
        similarities = [value for values in self.similarities.values() for value in values]
        correct = [value for values in self.correct.values() for value in values]
        return [*rows, ("all", _mean(similarities), _mean(correct))]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
