"""Masks of CRW's `test.py`: its decoding of the soft labels, to the bit; and our own codec set to do the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.labels import CrwMaskCodec, MaskCodec
from propagate.types import Frame
from tests.places import PARITY_DATA

DATA = PARITY_DATA


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "codec_of", [CrwMaskCodec, lambda ids: MaskCodec(ids, upsample="bilinear", stretch=False, vanish=0)]
)
def test_decoding(number, codec_of):
    golden = np.load(DATA / f"crw_clip_{number}.npz")
    height, width = map(int, golden["image_size"])
    codec = codec_of(tuple(range(1, len(golden["first_labels"]))))
    frame = Frame(np.zeros((height, width, 3), np.uint8), 0, 0.0)
    for soft, expected in zip(golden["soft_labels"], golden["masks"], strict=True):
        assert np.array_equal(codec.decode(torch.from_numpy(soft), frame).mask.ids, expected)
