"""Cases of the Triton kernel: `test_transfer.py` runs them in a process with Triton's interpreter.

The interpreter is chosen while Triton is imported, and stays; so these tests cannot share a process with others. Where
there is a GPU they run on it, too: `python -m pytest tests/propagation/cuda/transfer_cases.py`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from propagate.propagation.affinity import normalize
from propagate.propagation.cuda.transfer import MOST_TOP_K, Blocks, kernel, rounding, transfer
from propagate.propagation.dense import dense_transfer
from propagate.propagation.torch import transfer as torch_backend
from propagate.propagation.window import Rule, Window
from tests.propagation.test_affinity import problem, windows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True, scope="module")
def _products_of_bfloat16():
    """The interpreter holds bfloat16 as 16 bits without meaning and multiplies these (triton 3.7): give it numbers."""
    assert kernel() is not None
    if not INTERPRETED:
        yield
        return
    from triton.language import bfloat16, float32
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    original = InterpreterBuilder.create_dot

    def numbers(given):
        if given.dtype.scalar != bfloat16:
            return given
        return TensorHandle((given.data.astype(np.uint32) << 16).view(np.float32), float32)

    def create_dot(self, a, b, *others):
        return original(self, numbers(a), numbers(b), *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_dot", create_dot)
        yield


def exact_scores(query: Tensor, keys: Tensor, window: Window | None) -> Tensor:
    """(queries, keys) in float64, -inf where the window hides the key."""
    frames, _, height, width = keys.shape
    ys, xs = torch.arange(height * width) // width, torch.arange(height * width) % width
    scores = torch.einsum("cq,ncp->qnp", query.double().flatten(1), keys.double().flatten(2))
    for frame in range(frames):
        if window is not None and frame not in window.exempt:
            scores[:, frame][~window.contains(ys - ys[:, None], xs - xs[:, None])] = -torch.inf
    return scores.flatten(1)


def chosen(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Which keys of each query are the best, and by how much the last of them is better than the best other."""
    last = min(top_k, scores.shape[1])
    best = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(last).indices, True)
    worst, other = scores.masked_fill(~best, torch.inf).amin(1), scores.masked_fill(best, -torch.inf).amax(1)
    # -inf on both sides: all that can be reached are taken
    return best & scores.isfinite(), (worst - other).nan_to_num(torch.inf)


def weighed(best: Tensor, scores: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The softmax over the best keys, and the so weighted labels, in float64."""
    weights = torch.softmax(scores.masked_fill(~best, -torch.inf) / temperature, 1).nan_to_num(0.0)
    rows = labels.double().permute(0, 2, 3, 1).flatten(0, 2)
    return (weights @ rows).T.reshape(labels.shape[1:]).float()


def on_device(query, keys, labels, blocks=None, **options) -> Tensor:
    return transfer(query.to(DEVICE), keys.to(DEVICE), labels.to(DEVICE), Rule(**options), blocks=blocks).cpu()


def check(query, keys, labels, *, window, top_k, temperature, blocks=None) -> Tensor:
    """Hold the kernel against the definition and against torch's way; returns its labels.

    The definition is given the query as rounded, to choose by. Torch's way chooses by the float32 query: it has to
    agree where twice what rounding does to a score cannot change the choice.
    """
    options = {"window": window, "top_k": top_k, "temperature": temperature}
    soft = on_device(query, keys, labels, blocks, **options)
    exact = exact_scores(query, keys, window)
    best, gap = chosen(exact_scores(query.to(keys.dtype), keys, window), top_k)
    told_apart = (gap > 1e-5).view(soft.shape[1:])
    expected = weighed(best, exact, labels, temperature)
    torch.testing.assert_close(soft[:, told_apart], expected[:, told_apart], atol=1e-5, rtol=0)
    _, exact_gap = chosen(exact, top_k)
    clear = (exact_gap > 2 * rounding(keys.dtype) + 1e-5).view(soft.shape[1:])
    by_torch = torch_backend.transfer(query, keys, labels, Rule(**options))
    torch.testing.assert_close(soft[:, clear], by_torch[:, clear], atol=1e-5, rtol=0)
    return soft


# without shrinking, which in the interpreter takes minutes
@settings(deadline=None, max_examples=12, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(1, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 11)),
    channels=st.sampled_from([1, 2, 7, 16, 33, 70]),
    kinds=st.sampled_from([1, 2, 21]),
    window=windows,
    top_k=st.sampled_from([1, 2, 5, 6]),
    temperature=st.sampled_from([0.05, 0.2, 1.0, 1e30]),
    tile=st.sampled_from([(4, 8), (2, 8), (8, 4), (1, 16)]),
    key_block=st.sampled_from([16, 128]),
    dtype=st.sampled_from(DTYPES),
)
def test_equals_the_definition(seed, frames, size, channels, kinds, window, top_k, temperature, tile, key_block, dtype):
    query, keys, labels = problem(seed, frames=frames, height=size[0], width=size[1], channels=channels, kinds=kinds)
    shape, radius, exempt = window
    check(
        query,
        keys.to(dtype),
        labels,
        window=None if shape == "none" else Window(shape, radius, exempt),
        top_k=top_k,
        temperature=temperature,
        blocks=Blocks(tile, key_block, 16),
    )


@pytest.mark.parametrize("window", [Window("square", 2), Window("circle", 2.5, exempt=(0,))])
def test_equals_the_published_formulation(window):
    query, keys, labels = problem(1, channels=20)
    query = query.half().float()  # which rounds no more
    options = {"window": window, "top_k": 5, "temperature": 0.1}
    soft = on_device(query, keys.half(), labels, **options)
    torch.testing.assert_close(soft, dense_transfer(query, keys.half(), labels, **options), atol=1e-5, rtol=0)


@pytest.mark.parametrize("top_k", [31, MOST_TOP_K])
def test_long_lists_and_more_than_can_be_reached(top_k):
    query, keys, labels = problem(2, frames=2, height=3, width=5)  # 30 keys in all
    soft = check(query, keys.half(), labels, window=None, top_k=top_k, temperature=0.3)
    everything = check(query, keys.half(), labels, window=Window("square", 9), top_k=30, temperature=0.3)
    torch.testing.assert_close(soft, everything, atol=1e-6, rtol=0)


def test_the_bank_as_it_lies_in_memory():
    query, keys, labels = problem(3, frames=4, channels=16)
    bank = keys.half().to(memory_format=torch.channels_last)[:3]
    options = {"window": Window("square", 2), "top_k": 5, "temperature": 0.1}
    assert torch.equal(
        on_device(query, bank, labels[:3], **options), on_device(query, keys[:3].half(), labels[:3], **options)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_take_exactly_k_of_the_best(dtype):
    """Of each query four keys are the same and the best, and two count: any two, and no other key."""
    _, keys, _ = problem(4, frames=4, channels=8)
    keys = keys[:1].to(dtype).expand(4, -1, -1, -1).clone()
    query = keys[0].float()
    labels = 10.0 ** torch.arange(4).view(4, 1, 1, 1).expand(-1, -1, 7, 9)
    soft = on_device(query, keys, labels.contiguous(), window=Window("square", 0), top_k=2, temperature=0.1)
    pairs = torch.tensor([1 + 10, 1 + 100, 1 + 1000, 10 + 100, 10 + 1000, 100 + 1000]) / 2
    assert torch.isclose(soft[..., None], pairs).any(-1).all()


def test_zero_features_weigh_their_keys_alike():
    query, keys, labels = problem(5, frames=2, height=3, width=4)
    soft = on_device(torch.zeros_like(query), keys.half(), labels, window=None, top_k=24, temperature=0.1)
    expected = labels.mean((0, 2, 3))[:, None, None].expand_as(soft)
    torch.testing.assert_close(soft, expected, atol=1e-6, rtol=0)


def test_only_negative_scores():
    query, _, labels = problem(6, channels=4)
    keys = -query.expand(3, -1, -1, -1) + 0.05 * normalize(torch.randn(3, 4, 7, 9, generator=torch.manual_seed(0)))
    check(query, keys.half(), labels, window=Window("square", 0), top_k=2, temperature=0.05)


@pytest.mark.parametrize("temperature", [1e-4, 1e-40])
def test_tiny_temperatures_take_the_best(temperature):
    _, keys, labels = problem(7, channels=16)
    stored = keys.half()
    query = normalize(stored[0].float())
    soft = on_device(query, stored, labels, window=None, top_k=5, temperature=temperature)
    torch.testing.assert_close(soft, labels[0], atol=1e-5, rtol=0)


def test_nothing_reachable():
    query, keys, labels = problem(8)
    options = {"top_k": 5, "temperature": 0.1}
    assert not on_device(query, keys.half(), labels, window=Window("circle", 0), **options).any()
    soft = on_device(query, keys.half(), labels, window=Window("circle", 0, exempt=(2,)), **options)
    alone = on_device(query, keys[2:].half(), labels[2:], window=None, **options)
    torch.testing.assert_close(soft, alone, atol=1e-6, rtol=0)


def test_labels_of_any_size():
    query, keys, labels = problem(9, height=4, width=5)
    huge = labels * torch.tensor([1e-30, 1.0, 1e30]).view(3, 1, 1)
    options = {"window": Window("square", 1), "top_k": 4, "temperature": 0.1}
    soft, unit = (on_device(query, keys.half(), given, **options) for given in (huge, labels))
    torch.testing.assert_close(soft / torch.tensor([1e-30, 1.0, 1e30]).view(3, 1, 1), unit, atol=1e-5, rtol=0)
