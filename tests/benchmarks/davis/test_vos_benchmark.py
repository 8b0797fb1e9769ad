"""Our J and F against those of another implementation, `vos-benchmark`, in an environment of its own."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from propagate.benchmarks.davis.clips import load_davis
from propagate.formats import write_mask
from propagate.types import Mask
from tests.benchmarks.davis.test_davis import add_clip
from tests.places import CHECKOUT

PYTHON = CHECKOUT / ".vos-benchmark" / "bin" / "python"
PROGRAM = """
import json, sys
from vos_benchmark.benchmark import benchmark
*totals, clips = benchmark([sys.argv[1]], [sys.argv[2]], num_processes=1, verbose=False)
print(json.dumps([totals, clips]))
"""


def wandering_blobs(generator: np.random.Generator, frames: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Three ellipses that wander; every frame has all of them."""
    rows, columns = np.indices(size)
    places = generator.uniform(0.2, 0.8, (3, 2)) * size
    radii = generator.uniform(0.06, 0.2, (3, 2)) * size
    masks = []
    for _ in range(frames):
        ids = np.zeros(size, np.uint8)
        for number, (place, radius) in enumerate(zip(places, radii, strict=True), 1):
            ids[((rows - place[0]) / radius[0]) ** 2 + ((columns - place[1]) / radius[1]) ** 2 <= 1] = number
        for number, place in enumerate(places, 1):  # none is ever hidden as a whole
            top, left = (int(np.clip(p, 0, side - 2)) for p, side in zip(place, size, strict=True))
            ids[top : top + 2, left : left + 2] = number
        masks.append(ids)
        places += generator.normal(0, 3, places.shape)
    return masks


@pytest.mark.skipif(not PYTHON.exists(), reason="`make vos-benchmark` has not been run")
def test_both_give_the_same_values(tmp_path):
    generator = np.random.default_rng(0)
    for name, size in (("ant", (120, 213)), ("bee", (97, 61))):
        truth, prediction = (
            wandering_blobs(np.random.default_rng(seed), 8, size) for seed in generator.integers(99, size=2)
        )
        prediction = [np.where(generator.random(size) < 0.6, p, t) for p, t in zip(prediction, truth, strict=True)]
        prediction[3][prediction[3] == 2] = 0
        add_clip(tmp_path / "DAVIS", name, truth)
        for index, ids in enumerate(prediction):
            (tmp_path / "results" / name).mkdir(parents=True, exist_ok=True)
            write_mask(tmp_path / "results" / name / f"{index:05d}.png", Mask(ids.astype(np.uint8)))
    scores = load_davis(tmp_path / "DAVIS", year=2017, split="all").score(tmp_path / "results")

    truth_folder = tmp_path / "DAVIS" / "Annotations" / "480p"
    command = [str(PYTHON), "-c", PROGRAM, str(truth_folder), str(tmp_path / "results")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ((j_and_f,), (j,), (f,)), (clips,) = json.loads(output)
    for metric, percent in (("J&F", j_and_f), ("J-Mean", j), ("F-Mean", f)):
        assert 100 * scores.totals[metric] == pytest.approx(percent, rel=0, abs=1e-9)
    assert 0.1 < scores.totals["J-Mean"] < 0.9
    assert len(scores.curves) == 6
    for curve in scores.curves:
        for metric, values in zip(("J", "F"), clips[curve.clip], strict=True):
            assert 100 * curve.values[metric].mean() == pytest.approx(values[curve.target], rel=0, abs=1e-9)
