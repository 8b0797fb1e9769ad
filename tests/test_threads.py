from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from propagate.provenance import depends_on_threads
from propagate.settings import load_settings
from propagate.threads import in_threads, on_one_thread
from tests.places import CHECKOUT

# prints a hash of masks, keypoints, confidence and soft labels of a clip with noise in it
PROGRAM = """
import hashlib
import numpy as np
from propagate.pipeline import track
from propagate.settings import load_settings
from propagate.types import Keypoints, Mask

noise = np.random.default_rng(0)
ground = noise.integers(0, 256, (17, 25, 3)).repeat(8, 0).repeat(8, 1)[:130, :198]
frames = [(np.roll(ground, 3 * i, 1) * 0.8 + noise.integers(0, 50, ground.shape)).astype(np.uint8) for i in range(4)]
ids = np.zeros((130, 198), np.uint8)
ids[20:90, 15:80], ids[40:120, 100:170] = 1, 2
points = Keypoints(np.array([[30.0, 40.0], [120.0, 60.0], [90.0, 100.0]]), ("a", "b", "c"))
for preset, options in (("rgb", []), ("compact", ["features.dtype=float32"])):
    settings = load_settings(preset, ["features.device=cpu", "output.soft=true", *options])
    for label in (Mask(ids), points):
        digest = hashlib.sha256()
        for found in track(frames, label, settings=settings):
            digest.update(found.soft.numpy().tobytes() + repr(sorted(found.confidence.items())).encode())
            digest.update((found.keypoints.positions if found.mask is None else found.mask.ids).tobytes())
        print(preset, type(label).__name__, digest.hexdigest())
"""


def test_processes_with_other_numbers_of_threads_give_the_same_bytes():
    found = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        found.add(result.stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("arguments", "depends"),
    [
        (("rgb",), False),
        (("compact",), False),
        (("compact", "features.compile=true"), True),
        (("rgb", "propagation.top_k=200"), True),
    ],
    ids=str,
)
def test_which_settings_depend_on_the_threads(arguments, depends):
    assert depends_on_threads(load_settings(arguments[0], ["features.device=cpu", *arguments[1:]])) is depends


def test_a_piece_of_work_has_one_thread_also_in_its_first_operation():
    before, counts = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        in_threads(3)(lambda _: counts.append(torch.get_num_threads()), [0, 1, 2])
        counts.append(on_one_thread(torch.get_num_threads)())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert counts == [1, 1, 1, 1]
