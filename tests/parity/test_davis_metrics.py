"""J, F and their statistics against davis2017-evaluation.

The masks are results of OSVOS and RVOS, as published with davis2017-evaluation (BSD 3-Clause).
"""

from __future__ import annotations

import numpy as np
import pytest

from propagate.metrics import boundary_accuracy, region_similarity, statistics
from tests.places import PARITY_DATA

DATA = PARITY_DATA
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 38, 48, 67, 102, 255, 256, 257, 300, 400)


@pytest.mark.parametrize("number", [0, 1])
def test_j_and_f_of_real_masks(number):
    golden = np.load(DATA / f"davis_metrics_{number}.npz")
    truth, prediction = golden["truth"], golden["prediction"]
    for row, object_id in enumerate(golden["objects"]):
        for frame in range(len(truth)):
            pair = truth[frame] == object_id, prediction[frame] == object_id
            assert region_similarity(*pair) == pytest.approx(golden["J"][row, frame], rel=0, abs=1e-9)
            assert boundary_accuracy(*pair) == pytest.approx(golden["F"][row, frame], rel=0, abs=1e-9)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_statistics_of_real_values(number):
    golden = np.load(DATA / f"davis_metrics_{number}.npz")
    for row in range(len(golden["objects"])):
        j, f = statistics(golden["J"][row]), statistics(golden["F"][row])
        found = [j.mean, j.recall, j.decay, f.mean, f.recall, f.decay]
        assert found == pytest.approx(golden["statistics"][row].tolist(), rel=0, abs=1e-9)


@pytest.mark.parametrize("length", LENGTHS)
def test_statistics_of_every_length(length):
    golden = np.load(DATA / "davis_statistics_0.npz")
    mean, recall, decay = golden[f"statistics_{length}"]
    if length > 255:  # there, the reference's positions overflow
        decay = float(golden[f"decay_without_wrap_{length}"])
    found = statistics(golden[f"values_{length}"])
    assert [found.mean, found.recall, found.decay] == pytest.approx([mean, recall, decay], rel=0, abs=1e-9)
