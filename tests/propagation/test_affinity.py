from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.window import Window


def dense(
    query: Tensor, keys: Tensor, labels: Tensor, *, window: Window | None, top_k: int, temperature: float, ties: str
) -> Tensor:
    """The oracle: every score at once, in float64, a full sort, the definition written down."""
    frames, _, height, width = keys.shape
    ys, xs = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    dy, dx = ys[None, :] - ys[:, None], xs[None, :] - xs[:, None]
    scores = torch.einsum("cq,ncp->qnp", query.double().flatten(1), keys.double().flatten(2))
    if window is not None:
        if window.shape == "circle":
            inside = (dy**2 + dx**2).double().sqrt() < window.radius
        else:
            inside = (dy.abs() <= window.radius) & (dx.abs() <= window.radius)
        for frame in set(range(frames)) - set(window.exempt):
            scores[:, frame][~inside] = -torch.inf
    scores = scores.flatten(1)
    rows = labels.double().permute(0, 2, 3, 1).flatten(0, 2)
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    kept = rank < top_k
    if ties == "keep":
        kth = scores.gather(1, order[:, min(top_k, scores.shape[1]) - 1 : min(top_k, scores.shape[1])])
        kept |= scores >= kth - 1e-12
    weights = torch.where(kept & scores.isfinite(), ((scores - 1) / temperature).exp(), 0.0)
    total = weights.sum(1, keepdim=True)
    weights = torch.where(total > 0, weights / total, 0.0)
    return (weights @ rows).T.reshape(-1, height, width).float()


def problem(seed: int, *, frames: int = 3, height: int = 7, width: int = 9, channels: int = 6, kinds: int = 3):
    generator = torch.Generator().manual_seed(seed)
    query = normalize(torch.randn(channels, height, width, generator=generator))
    keys = normalize(torch.randn(frames, channels, height, width, generator=generator))
    labels = torch.rand(frames, kinds, height, width, generator=generator)
    return query, keys, labels


# shape, radius, exempt; the Window itself is built in the test, because the type checker draws random numbers
windows = st.tuples(
    st.sampled_from(["none", "square", "circle"]),
    st.sampled_from([0, 1, 1.5, 2, 3, 4.5, 20]),
    st.sampled_from([(), (0,), (0, 1)]),
)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(2, 4),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    window=windows,
    top_k=st.sampled_from([1, 2, 5, 15, 400]),
    temperature=st.sampled_from([0.05, 0.1, 0.2, 1.0]),
    budget=st.sampled_from([1, 2**9, 2**20]),
    ties=st.sampled_from(["cut", "keep"]),
)
def test_tiles_equal_the_dense_definition(seed, frames, height, width, window, top_k, temperature, budget, ties):
    query, keys, labels = problem(seed, frames=frames, height=height, width=width)
    window = None if window[0] == "none" else Window(*window)
    options = {"window": window, "top_k": top_k, "temperature": temperature, "ties": ties}
    found = propagate_labels(query, keys, labels, tile_scores=budget, **options)
    torch.testing.assert_close(found, dense(query, keys, labels, **options), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ties", ["cut", "keep"])
def test_large_grid_through_the_grouped_selection(ties):
    query, keys, labels = problem(0, frames=4, height=24, width=31)
    options = {"window": Window("square", 9), "top_k": 5, "temperature": 0.1, "ties": ties}
    expected = dense(query, keys, labels, **options)
    torch.testing.assert_close(propagate_labels(query, keys, labels, **options), expected, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), order=st.permutations(range(4)))
def test_the_order_of_context_frames_does_not_matter(seed, order):
    query, keys, labels = problem(seed, frames=4)
    options = {"window": Window("square", 2), "top_k": 5, "temperature": 0.1}
    shuffled = propagate_labels(query, keys[order], labels[order], **options)
    torch.testing.assert_close(shuffled, propagate_labels(query, keys, labels, **options), atol=1e-6, rtol=0)


def test_channels_last_memory_gives_the_same():
    query, keys, labels = problem(1)
    options = {"window": Window("square", 2), "top_k": 5, "temperature": 0.1}
    last = keys.to(memory_format=torch.channels_last)
    assert torch.equal(
        propagate_labels(query, last, labels, **options), propagate_labels(query, keys, labels, **options)
    )


def test_keys_in_half_precision_stay_close():
    query, keys, labels = problem(2)
    options = {"window": Window("square", 2), "top_k": 3, "temperature": 0.2}
    half = propagate_labels(query, keys.half(), labels, **options)
    close = (half - propagate_labels(query, keys, labels, **options)).abs() < 5e-3
    assert close.float().mean() > 0.95  # a near tie may fall the other way


def test_the_window_never_wraps_around_the_border():
    query = normalize(torch.ones(1, 4, 4))
    labels = torch.zeros(1, 1, 4, 4)
    labels[0, 0, :, 3] = 1  # the right column; a wrapped window would show it to the left one
    soft = propagate_labels(
        query, query[None], labels, window=Window("square", 1), top_k=9, temperature=1.0, ties="keep"
    )
    assert (soft[0, :, :2] == 0).all()
    assert (soft[0, :, 2] > 0).all()


def test_circle_is_strict_and_square_inclusive():
    axis = torch.arange(-3, 4)
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    assert Window("square", 2).contains(dy, dx).sum() == 25
    assert Window("circle", 2).contains(dy, dx).sum() == 9  # 3 x 3: distance below 2
    wide = torch.arange(-12, 13)
    dy, dx = torch.meshgrid(wide, wide, indexing="ij")
    assert Window("circle", 12).contains(dy, dx).sum() == 437
    assert Window("square", 12).contains(dy, dx).sum() == 625


def test_nothing_reachable_gives_no_label():
    query, keys, labels = problem(3)
    for ties in ("cut", "keep"):
        soft = propagate_labels(query, keys, labels, window=Window("circle", 0), top_k=5, temperature=0.1, ties=ties)
        assert torch.equal(soft, torch.zeros_like(soft))


def test_exempt_frames_are_reached_through_an_empty_window():
    query, keys, labels = problem(4)
    options = {"top_k": 5, "temperature": 0.1}
    soft = propagate_labels(query, keys, labels, window=Window("circle", 0, exempt=(1,)), **options)
    alone = propagate_labels(query, keys[1:2], labels[1:2], window=None, **options)
    torch.testing.assert_close(soft, alone, atol=1e-6, rtol=0)


def test_zero_features_weigh_all_ties_alike():
    query, keys, labels = problem(5)
    soft = propagate_labels(torch.zeros_like(query), keys, labels, window=None, top_k=3, temperature=0.1, ties="keep")
    expected = labels.mean((0, 2, 3))
    torch.testing.assert_close(soft, expected[:, None, None].expand_as(soft), atol=1e-5, rtol=0)


def test_tiny_temperature_does_not_overflow():
    query, keys, labels = problem(6)
    same = propagate_labels(keys[0], keys, labels, window=None, top_k=5, temperature=1e-4)
    torch.testing.assert_close(same, labels[0], atol=1e-5, rtol=0)
    assert query.isfinite().all()


def test_labels_of_a_partition_stay_a_partition():
    query, keys, labels = problem(7)
    labels = labels / labels.sum(1, keepdim=True)
    soft = propagate_labels(query, keys, labels, window=Window("square", 2), top_k=7, temperature=0.1)
    torch.testing.assert_close(soft.sum(0), torch.ones(7, 9), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("option", "value"), [("top_k", 0), ("temperature", 0.0), ("temperature", -1.0)])
def test_impossible_options_are_named(option, value):
    query, keys, labels = problem(8)
    options = {"top_k": 5, "temperature": 0.1, option: value}
    with pytest.raises(ValueError, match=f"{option} must be"):
        propagate_labels(query, keys, labels, window=None, **options)


def test_normalize_leaves_zero_at_zero():
    features = torch.zeros(3, 2, 2)
    features[:, 0, 0] = torch.tensor([3.0, 0.0, 4.0])
    unit = normalize(features)
    assert unit[:, 0, 0].tolist() == pytest.approx([0.6, 0.0, 0.8])
    assert unit[:, 1, 1].tolist() == [0.0, 0.0, 0.0]


def test_lengths_are_the_same_bits_in_whatever_order_features_lie_in_memory():
    features = torch.randn(2, 128, 12, 20)
    expected = normalize(features)
    turned = normalize(features.contiguous(memory_format=torch.channels_last))
    assert torch.equal(turned, expected)
    assert torch.equal(normalize(features[1]), expected[1])
