from __future__ import annotations

import pytest
import torch

from propagate.propagator import LabelPropagator


def moving_features(steps: int, height: int = 8, width: int = 12) -> torch.Tensor:
    """Every cell its own direction; the whole picture moves one cell to the right per frame."""
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randn(16, height, width + steps, generator=generator)
    return torch.stack([canvas[:, :, steps - step : steps - step + width] for step in range(steps)])


def test_a_moving_thing_is_followed():
    features = moving_features(5)
    first = torch.zeros(2, 8, 12)
    first[1, 2:5, 2:5] = 1
    first[0] = 1 - first[1]
    propagator = LabelPropagator(n_last=3, top_k=1, radius=2)
    propagator.anchor(features[0], first)
    for step in range(1, 5):
        soft = propagator.step(features[step])
        expected = torch.zeros(8, 12)
        expected[2:5, 2 + step : 5 + step] = 1
        assert torch.equal(soft[1, :, 4:] > 0.5, expected[:, 4:] > 0.5)


def test_scale_of_features_does_not_matter():
    features = moving_features(3)
    first = torch.rand(2, 8, 12)
    results = []
    for scale in (1.0, 37.0):
        propagator = LabelPropagator(top_k=3, radius=2)
        propagator.anchor(features[0] * scale, first)
        results.append(propagator.step(features[1] * scale))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


def test_the_anchor_is_answered_with_its_own_labels():
    labels = torch.rand(3, 8, 12)
    assert torch.equal(LabelPropagator().anchor(moving_features(1)[0], labels), labels)


def test_a_correction_in_mid_video_leads_where_it_matches_best():
    before, after = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(1))
    propagator = LabelPropagator(n_last=0, top_k=1, radius=3)
    propagator.anchor(before, torch.zeros(1, 8, 12))
    assert propagator.step(after).max() == 0
    propagator.anchor(after, torch.ones(1, 8, 12))
    assert propagator.step(after).min() == 1
    assert propagator.step(before).max() == 0


@pytest.mark.parametrize("window", ["square", "circle", "none"])
def test_windows_by_name(window):
    features = moving_features(2)
    propagator = LabelPropagator(window=window, radius=4, top_k=1)
    propagator.anchor(features[0], torch.ones(1, 8, 12))
    torch.testing.assert_close(propagator.step(features[1]), torch.ones(1, 8, 12))


def test_exempt_anchors_are_found_beyond_the_window():
    features = moving_features(7)
    first = torch.zeros(1, 8, 12)
    first[0, :, 0] = 1
    found = {}
    for exempt in (False, True):
        propagator = LabelPropagator(n_last=0, top_k=1, radius=2, exempt_anchors=exempt)
        propagator.anchor(features[0], first)
        found[exempt] = propagator.step(features[6])[0, :, 6].min()
    assert found[True] == 1
    assert found[False] == 0


def test_step_before_anchor_is_an_error():
    with pytest.raises(ValueError, match=r"step\(\) before anchor\(\)"):
        LabelPropagator().step(moving_features(1)[0])


def test_an_anchor_of_another_picture_is_found_beyond_the_window_and_the_others_stay_bound():
    features = moving_features(7)
    first = torch.zeros(1, 8, 12)
    first[0, :, 0] = 1
    found = {}
    for window in (None, "none"):
        propagator = LabelPropagator(n_last=0, top_k=1, radius=2)
        propagator.anchor(torch.zeros_like(features[0]), torch.zeros(1, 8, 12))
        propagator.anchor(features[0], first, window=window)
        found[window] = propagator.step(features[6])[0, :, 6].min()
    assert found["none"] == 1
    assert found[None] == 0


def test_the_window_of_the_video_still_binds_its_own_anchor():
    features = moving_features(7)
    far = torch.zeros(1, 8, 12)
    far[0, :, 0] = 1
    propagator = LabelPropagator(n_last=0, top_k=1, radius=2)
    propagator.anchor(torch.zeros_like(features[0]), torch.zeros(1, 8, 12), window="none")
    propagator.anchor(features[0], far)
    assert propagator.step(features[6])[0, :, 6].max() == 0
