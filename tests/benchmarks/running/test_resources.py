from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from propagate.benchmarks.running.resources import machine, peak_device_memory, peak_memory, reset_peak_memory

BYTES = 2**26


def test_the_peak_is_that_since_the_reset():
    if peak_memory() is None:
        pytest.skip("the system does not say")
    np.ones(BYTES, np.uint8)  # freed at once
    reset_peak_memory()
    before = peak_memory()
    held = np.ones(BYTES, np.uint8)
    during = peak_memory()
    assert held.sum() == BYTES
    assert during - before > BYTES // 2
    del held
    reset_peak_memory()
    assert peak_memory() < during


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_no_memory():
    assert peak_device_memory() is None


def test_the_machine_is_told_as_json():
    found = json.loads(json.dumps(machine()))
    assert found["cores"] >= 1
    assert found["threads"] == torch.get_num_threads()
    assert found["processor"]
    assert len(found["gpus"]) == torch.cuda.device_count()
