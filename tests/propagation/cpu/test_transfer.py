from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.cpu import transfer as affinity_cpu
from propagate.propagation.torch import transfer as torch_backend
from propagate.propagation.window import Rule, Window
from tests.places import CHECKOUT
from tests.propagation.test_affinity import dense, problem, windows

pytestmark = pytest.mark.skipif(affinity_cpu.kernels() is None, reason="numba does not run here")

PRECISIONS = ["float32", "int8"]


def transfer(*tensors, window, top_k, temperature, ties="cut", **options):
    return affinity_cpu.transfer(*tensors, Rule(window, top_k, temperature, ties), **options)


@pytest.fixture(params=PRECISIONS)
def precision(request):
    if request.param == "int8" and affinity_cpu.fastest_precision() != "int8":
        pytest.skip("this CPU has no fast integer products")
    return request.param


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(1, 4),
    size=st.tuples(st.integers(1, 12), st.integers(1, 21)),
    channels=st.sampled_from([2, 3, 16, 40]),
    kinds=st.sampled_from([1, 2, 21]),
    window=windows,
    top_k=st.sampled_from([1, 2, 5, 15, 100]),
    temperature=st.sampled_from([0.05, 0.2, 1.0, 1e30]),
    tile_scores=st.sampled_from([1, 2**9, None]),
    ties=st.sampled_from(["cut", "keep"]),
    coarse=st.sampled_from(PRECISIONS),
)
def test_equals_the_dense_definition(
    seed, frames, size, channels, kinds, window, top_k, temperature, tile_scores, ties, coarse
):
    query, keys, labels = problem(seed, frames=frames, height=size[0], width=size[1], channels=channels, kinds=kinds)
    shape, radius, exempt = window
    options = {
        "window": None if shape == "none" else Window(shape, radius, exempt),
        "top_k": top_k,
        "temperature": temperature,
        "ties": ties,
    }
    if coarse == "int8" and affinity_cpu.fastest_precision() != "int8":
        coarse = "float32"
    soft = transfer(query, keys, labels, **options, tile_scores=tile_scores, precision=coarse)
    # in few dimensions some scores come so close that float32 takes them for equal, and the definition does not
    clear = _clear(query, keys, options["window"], top_k)
    torch.testing.assert_close(soft[:, clear], dense(query, keys, labels, **options)[:, clear], atol=1e-5, rtol=0)
    assert clear.float().mean() > 0.8


def _clear(query, keys, window, top_k):
    """Queries whose k-th best score is further from the next one than float32 rounds; all if there are fewer keys."""
    frames, _, height, width = keys.shape
    scores = torch.einsum("chw,ncij->hwnij", query.double(), keys.double())
    if window is not None:
        dy = torch.arange(height)[:, None] - torch.arange(height)
        dx = torch.arange(width)[:, None] - torch.arange(width)
        inside = window.contains(dy[:, None, :, None], dx[None, :, None, :])
        for frame in set(range(frames)) - set(window.exempt):
            scores[:, :, frame].masked_fill_(~inside, -torch.inf)
    flat = scores.flatten(2)
    if flat.shape[2] <= top_k:
        return torch.ones(height, width, dtype=torch.bool)
    best = flat.topk(top_k + 1).values
    return ~(best[..., -2] - best[..., -1] < 1e-6)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([1e-6, 1e-4, 1e-2]), top_k=st.sampled_from([1, 5]))
def test_scores_that_rounding_cannot_tell_apart_are_told_apart(seed, spread, top_k):
    """All keys nearly the same: only the exact scores show which are best, and these are compared key by key."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.ones(2, 8, 6, 9) + spread * torch.randn(2, 8, 6, 9, generator=generator)
    query = torch.randn(8, 6, 9, generator=generator)
    labels = torch.arange(108.0).view(2, 1, 6, 9)
    options = {"window": Window("square", 3), "top_k": top_k, "temperature": 1e9}
    soft = [transfer(query, keys, labels, **options, precision=coarse) for coarse in _precisions()]
    assert all(torch.equal(soft[0], other) for other in soft)
    # the labels number the keys, and a huge temperature takes their mean: a key that rounding had put in shows
    scores = torch.einsum("chw,ncij->hwnij", query.double(), keys.double())
    far = (torch.arange(6)[:, None, None, None] - torch.arange(6)[:, None]).abs() > 3
    far = far | ((torch.arange(9)[:, None, None] - torch.arange(9)).abs() > 3)
    scores[far.unsqueeze(2).expand_as(scores)] = -torch.inf
    chosen = scores.flatten(2).topk(top_k + 1).values
    clear = chosen[..., top_k - 1] - chosen[..., top_k] > 1e-5 * query.norm(dim=0)  # beyond what float32 can tell
    expected = scores.flatten(2).topk(top_k).indices.double().mean(-1)
    assert ((soft[0][0].double() - expected).abs()[clear] < 1e-3).all()


def _precisions():
    return PRECISIONS if affinity_cpu.fastest_precision() == "int8" else ["float32"]


@pytest.mark.parametrize("ties", ["cut", "keep"])
@pytest.mark.parametrize("window", [None, Window("square", 2), Window("circle", 3, exempt=(1,))])
def test_threads_tiles_and_precision_change_no_bit(window, ties):
    query, keys, labels = problem(1, frames=3, height=11, width=23, channels=24)
    keys[1] = keys[0]  # ties everywhere
    options = {"window": window, "top_k": 5, "temperature": 0.1, "ties": ties}
    first = transfer(query, keys, labels, **options, threads=1, precision="float32")
    for coarse in _precisions():
        for threads in (1, 2, 3):
            for tile_scores in (1, 3000, 2**22):
                other = transfer(
                    query, keys, labels, **options, threads=threads, tile_scores=tile_scores, precision=coarse
                )
                assert torch.equal(first, other)


def test_torch_keeps_its_number_of_threads():
    query, keys, labels = problem(2)
    before = torch.get_num_threads()
    transfer(query, keys, labels, window=None, top_k=5, temperature=0.1, threads=3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("window", [None, Window("square", 3), Window("square", 2, exempt=(0,))])
def test_keys_in_half_precision_count_as_they_are_stored(dtype, window, precision):
    query, keys, labels = problem(3, height=9, width=10, channels=20)
    options = {"window": window, "top_k": 5, "temperature": 0.1}
    stored = keys.to(dtype)
    soft = transfer(query, stored, labels, **options, precision=precision)
    assert torch.equal(soft, transfer(query, stored.float(), labels, **options, precision=precision))
    torch.testing.assert_close(soft, dense(query, stored.float(), labels, **options, ties="cut"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-35, 1e-12, 1e12])
def test_features_of_any_length(scale, precision):
    query, keys, labels = problem(4)
    options = {"window": Window("square", 2), "top_k": 4, "ties": "keep"}
    soft = transfer(query * scale, keys, labels, **options, temperature=0.1 * max(scale, 1e-35), precision=precision)
    unit = dense(query if scale else query * 0, keys, labels, **options, temperature=0.1)
    torch.testing.assert_close(soft, unit, atol=1e-4, rtol=0)
    # the same with the lengths the other way round
    soft = transfer(query, keys * scale, labels, **options, temperature=0.1 * max(scale, 1e-35), precision=precision)
    torch.testing.assert_close(soft, unit, atol=1e-4, rtol=0)


def test_some_cells_without_features(precision):
    query, keys, labels = problem(5, height=8, width=8)
    keys[:, :, :4] = 0
    query[:, :, :3] = 0
    options = {"window": Window("square", 1), "top_k": 30, "temperature": 0.1, "ties": "keep"}
    soft = transfer(query, keys, labels, **options, precision=precision)
    torch.testing.assert_close(soft, dense(query, keys, labels, **options), atol=1e-5, rtol=0)


def test_only_negative_scores(precision):
    query, _, labels = problem(6, channels=4)
    keys = -query.expand(3, -1, -1, -1) + 0.05 * normalize(torch.randn(3, 4, 7, 9, generator=torch.manual_seed(0)))
    options = {"window": Window("square", 0), "top_k": 2, "temperature": 0.05, "ties": "cut"}
    soft = transfer(query, keys, labels, **options, precision=precision)
    torch.testing.assert_close(soft, dense(query, keys, labels, **options), atol=1e-5, rtol=0)


def test_tiny_temperature(precision):
    _, keys, labels = problem(7)
    soft = transfer(keys[0], keys, labels, window=None, top_k=5, temperature=1e-40, precision=precision)
    torch.testing.assert_close(soft, labels[0], atol=1e-5, rtol=0)


def test_nothing_reachable(precision):
    query, keys, labels = problem(8)
    options = {"top_k": 5, "temperature": 0.1, "precision": precision}
    assert not transfer(query, keys, labels, window=Window("circle", 0), **options).any()
    soft = transfer(query, keys, labels, window=Window("circle", 0, exempt=(2,)), **options)
    torch.testing.assert_close(soft, transfer(query, keys[2:], labels[2:], window=None, **options))


def test_it_is_what_propagate_labels_takes(monkeypatch):
    query, keys, labels = problem(9)
    options = {"window": Window("square", 2), "top_k": 5, "temperature": 0.1}
    assert torch.equal(propagate_labels(query, keys, labels, **options), transfer(query, keys, labels, **options))
    calls = []
    monkeypatch.setattr(affinity_cpu, "transfer", lambda *args, **given: calls.append(given) or labels[0])
    propagate_labels(query, keys, labels, **options)
    assert len(calls) == 1
    propagate_labels(query, keys, labels, **{**options, "top_k": 1000})  # a list of so many is no longer fast
    propagate_labels(query.double(), keys.double(), labels.double(), **options)
    assert len(calls) == 1


def test_without_numba_torch_does_it(monkeypatch):
    query, keys, labels = problem(10)
    options = {"window": Window("square", 2), "top_k": 5, "temperature": 0.1, "ties": "cut"}
    compiled = propagate_labels(query, keys, labels, **options)
    monkeypatch.setitem(sys.modules, "propagate.propagation.cpu.kernels", None)  # importing it raises ImportError
    monkeypatch.delattr("propagate.propagation.cpu.kernels", raising=False)
    affinity_cpu.kernels.cache_clear()
    try:
        soft = propagate_labels(query, keys, labels, **options)
        assert torch.equal(soft, torch_backend.transfer(query, keys, labels, Rule(**options)))
        assert not affinity_cpu.can_transfer(query, keys, labels, 5)
    finally:
        affinity_cpu.kernels.cache_clear()
    torch.testing.assert_close(soft, compiled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("features", [{}, {"avx512f": True}, {"avx512vnni": False}, None])
def test_a_cpu_without_fast_integer_products_takes_float32(features, monkeypatch):
    def asked():
        if features is None:
            raise RuntimeError("unknown here")
        return features

    affinity_cpu.fastest_precision.cache_clear()
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", asked)
    try:
        assert affinity_cpu.fastest_precision() == "float32"
    finally:
        affinity_cpu.fastest_precision.cache_clear()


def test_code_for_another_cpu_takes_float32(monkeypatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: {"avx512vnni": True})
    assert affinity_cpu.kernels().multiplies_integers()
    monkeypatch.setattr("numba.config.CPU_NAME", "generic")
    assert not affinity_cpu.kernels().multiplies_integers()


def test_importing_the_package_does_not_load_numba():
    loaded = (
        "import sys, propagate.propagation.affinity, propagate.propagation.propagator; print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_folder_for_compiled_code_is_no_error(tmp_path):
    """As where the package lies in a folder that cannot be written and there is no home: compiled anew each time."""
    program = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from propagate.propagation.cpu import kernels, selection as loops\n"
        "import numpy as np\n"
        "values, places = np.full(2, -1.0, np.float32), np.zeros(2, np.int64)\n"
        "loops.insert(values, places, np.float32(3), 7)\n"
        "print(values[0], places[0])\n"
    )
    root = CHECKOUT
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (["3.0", "7"], 0), done.stderr
