from __future__ import annotations

import torch

from propagate.features import build_extractor


def test_a_cell_holds_its_own_colors():
    images = torch.full((1, 3, 16, 24), 0.5)
    images[0, :, 8:16, 16:24] = torch.tensor([1.0, 0.25, 0.5]).view(3, 1, 1)
    features = build_extractor("rgb", device="cpu")(images)
    assert features.shape == (1, 48, 2, 3)
    expected = torch.tensor([0.5, -0.25, 0.0]).repeat_interleave(16)
    torch.testing.assert_close(features[0, :, 1, 2], expected)
    assert features[0, :, 0].abs().max() == 0
