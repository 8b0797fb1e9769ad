from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from propagate.propagation.affinity import normalize
from propagate.propagation.memory import MemoryBank
from propagate.propagation.propagator import LabelPropagator


def moving_features(steps: int, height: int = 8, width: int = 12, channels: int = 16) -> torch.Tensor:
    """Every cell its own direction; the whole picture moves one cell to the right per frame."""
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randn(channels, height, width + steps, generator=generator)
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


def pooled(finer: torch.Tensor, factor: int = 2) -> torch.Tensor:
    return F.avg_pool2d(finer[None], factor)[0]


def finer_features(steps: int) -> torch.Tensor:
    """Every finer cell its own direction; the picture moves by one finer cell, half a cell, per frame."""
    return moving_features(steps, 16, 24, channels=128)


def test_finer_features_follow_what_moves_by_half_a_cell():
    features = finer_features(6)
    first = torch.zeros(2, 16, 24)
    first[1, 4:9, 4:9] = 1
    first[0] = 1 - first[1]
    propagator = LabelPropagator(n_last=3, top_k=1, radius=2, finer=True, finer_from=4)
    assert torch.equal(propagator.anchor(pooled(features[0]), first, features[0]), first)
    for step in range(1, 6):
        soft = propagator.step(pooled(features[step]), features[step])
        assert soft.shape == (2, 16, 24)
        expected = torch.zeros(16, 24)
        expected[4:9, 4 + step : 9 + step] = 1
        assert torch.equal(soft[1, :, 6:] > 0.5, expected[:, 6:] > 0.5)


def test_with_everything_found_it_is_the_plain_transfer_on_the_finer_grid():
    generator = torch.Generator().manual_seed(2)
    features, first = torch.randn(5, 8, 16, 24, generator=generator), torch.rand(3, 16, 24, generator=generator)
    options = {"window": "none", "top_k": 5, "n_last": 2, "n_older": 1, "older_every": 2}
    finer = LabelPropagator(finer=True, finer_from=4 * 8 * 12, **options)
    plain = LabelPropagator(**options)
    finer.anchor(pooled(features[0]), first, features[0])
    plain.anchor(features[0], first)
    for step in range(1, 5):
        found, expected = finer.step(pooled(features[step]), features[step]), plain.step(features[step])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_finer_memory_is_what_its_formula_says_and_stays():
    features = finer_features(12)
    propagator = LabelPropagator(n_last=3, n_older=2, older_every=2, radius=2, finer=True, memory_dtype="float16")
    propagator.anchor(pooled(features[0]), torch.zeros(2, 16, 24), features[0])
    slots, cells = 1 + 3 + 2, 8 * 12
    expected = slots * cells * 128 * 2, slots * cells * 4 * (128 * 2 + 2 * 4)
    assert propagator.finer_memory is not None
    for step in range(1, 12):
        assert (propagator.memory.nbytes, propagator.finer_memory.nbytes) == expected
        propagator.step(pooled(features[step]), features[step])
        assert len(propagator.memory) == len(propagator.finer_memory)


@pytest.mark.parametrize("finer", [False, True])
def test_finer_features_and_a_propagator_for_them_belong_together(finer):
    features, labels = finer_features(2), torch.zeros(1, 16, 24)
    propagator = LabelPropagator(finer=finer)
    given = () if finer else (features[0],)
    with pytest.raises(ValueError, match="finer features have to come with a propagator made with finer=True"):
        propagator.anchor(pooled(features[0]), labels, *given)


def test_finer_features_of_a_grid_that_does_not_fit():
    propagator = LabelPropagator(finer=True)
    with pytest.raises(ValueError, match="a grid of 16x23 does not divide the cells of one of 8x12"):
        propagator.anchor(torch.zeros(4, 8, 12), torch.zeros(1, 16, 23), torch.zeros(4, 16, 23))


def test_an_older_frame_is_remembered_after_the_ring_has_passed():
    pictures = torch.randn(4, 16, 8, 12, generator=torch.Generator().manual_seed(5))
    results = {}
    for n_older in (0, 1):
        propagator = LabelPropagator(n_last=1, n_older=n_older, older_every=2, top_k=1, window="none")
        propagator.anchor(pictures[0], torch.ones(1, 8, 12))
        propagator.step(pictures[1])
        propagator.step(pictures[2])
        propagator.step(pictures[3])
        keys, _ = propagator.memory.context()
        newest = torch.einsum("nchw,chw->nhw", keys, normalize(pictures[2])).flatten(1).mean(1)
        results[n_older] = int((newest > 0.999).sum())
    assert results == {0: 0, 1: 1}


def test_precision_suits_the_device_and_what_is_compared():
    features, labels = torch.rand(3, 2, 2), torch.rand(2, 2, 2)
    for ties, memory_dtype, expected in (
        ("cut", "auto", torch.float32),
        ("keep", "auto", torch.float32),
        ("cut", "float16", torch.float16),
        ("keep", "bfloat16", torch.bfloat16),
    ):
        propagator = LabelPropagator(ties=ties, memory_dtype=memory_dtype)
        propagator.anchor(features, labels)
        assert propagator.memory.context()[0].dtype == expected


@pytest.mark.parametrize("options", [{}, {"exempt_anchors": True}, {"n_older": 2, "older_every": 2}], ids=str)
def test_what_is_kept_between_steps_changes_no_bit(options, monkeypatch):
    """A second anchor comes in the middle: the frames of the memory move."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(12, 20, 6, 7, generator=generator)
    labels = torch.rand(2, 6, 7, generator=generator)

    def run() -> list[torch.Tensor]:
        propagator = LabelPropagator(n_last=3, radius=3, **options)
        propagator.anchor(pictures[0], labels)
        found = [propagator.step(picture) for picture in pictures[1:7]]
        propagator.anchor(pictures[7], labels.flip(0))
        return found + [propagator.step(picture) for picture in pictures[8:]]

    kept = run()
    monkeypatch.setattr(MemoryBank, "stamps", None)
    assert all(torch.equal(one, two) for one, two in zip(kept, run(), strict=True))


@pytest.mark.parametrize("finer", [False, True])
def test_predicting_keeps_nothing(finer):
    """`predict` gives what `step` would, and what comes after it is as if it had not been called."""
    pictures = moving_features(4)
    labels = torch.rand(2, 8, 12)

    def given(picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (pooled(picture), picture) if finer else (picture,)

    def run(*, looking: bool) -> list[torch.Tensor]:
        propagator = LabelPropagator(n_last=2, radius=3, finer=finer)
        first = given(pictures[0])
        propagator.anchor(first[0], labels, *first[1:])
        found = []
        for picture in pictures[1:]:
            looked = propagator.predict(*given(picture)) if looking else None
            found.append(propagator.step(*given(picture)))
            assert looked is None or torch.equal(looked, found[-1])
        return found

    assert all(torch.equal(one, two) for one, two in zip(run(looking=True), run(looking=False), strict=True))


def test_predicting_needs_an_anchor():
    with pytest.raises(ValueError, match="give an annotated frame first"):
        LabelPropagator().predict(torch.rand(3, 8, 12))
