"""Masks of DIFT's `eval_davis.py`: its encoding of the first mask and its decoding of the soft labels, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.labels import DiftMaskCodec
from propagate.types import Frame, Mask
from tests.places import PARITY_DATA

DATA = PARITY_DATA


@pytest.fixture(params=[0, 1])
def golden(request):
    return np.load(DATA / f"label_propagation_clip_{request.param}.npz")


def test_encoding(golden):
    mask = Mask(golden["first_mask"])
    expected = golden["first_labels"]
    soft = DiftMaskCodec(mask.objects, stride=int(golden["scale_factor"])).encode(mask, mask.size, expected.shape[1:])
    assert np.array_equal(soft.numpy(), expected)


def test_decoding(golden):
    mask = Mask(golden["first_mask"])
    codec = DiftMaskCodec(mask.objects, stride=int(golden["scale_factor"]))
    frame = Frame(np.zeros((*mask.size, 3), np.uint8), 0, 0.0)
    for soft, expected in zip(golden["soft_labels"], golden["masks"][1:], strict=True):
        assert np.array_equal(codec.decode(torch.from_numpy(soft), frame).mask.ids, expected)
    assert np.array_equal(codec.given(mask, frame).mask.ids, golden["masks"][0])
