from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from propagate.propagation.affinity import propagate_labels
from propagate.propagation.cuda import transfer as affinity_triton
from propagate.propagation.cuda.transfer import MOST_TOP_K, Blocks, SlowTransferWarning, rounding
from propagate.propagation.window import Rule, Window
from tests.places import CHECKOUT
from tests.propagation.test_affinity import problem

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is there for Linux only")
CASES = Path(__file__).with_name("transfer_cases.py")

# what GPUs are given, for two kinds of them: the interpreter knows neither types nor layouts
COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from propagate.propagation.cuda.transfer import Blocks
from propagate.propagation.cuda.kernel import transfer

blocks = Blocks()
names = transfer.arg_names
for capability, dtype, channels, slots, circle in [(80, "bf16", 37, 1, True), (90, "fp16", 128, 8, False)]:
    constants = dict(CIRCLE=circle, CHANNELS=channels, SLOTS=slots, TALL=blocks.tile[0], WIDE=blocks.tile[1],
                     BLOCK_KEYS=blocks.keys, BLOCK_CHANNELS=blocks.channels)
    pointers = dict(query=dtype, keys=dtype, exact_query="fp32", labels="fp32", result="fp32", frames="i32")
    types = {name: "*" + pointers[name] if name in pointers else "i32" for name in names}
    types |= {"sharpness": "fp32"} | dict.fromkeys(constants, "constexpr")
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    done = compile(ASTSource(transfer, types, constants, aligned), target=GPUTarget("cuda", capability, 32))
    print(done.metadata.shared, "mma.sync" in done.asm["ptx"] or "wgmma" in done.asm["ptx"])
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        check=False,
    )


@needs_triton
def test_the_kernel_in_the_interpreter():
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_kernel_on_the_gpu():
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES), TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_triton
def test_the_kernel_compiles_to_tensor_core_products_within_shared_memory(tmp_path):
    done = run("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        shared, products = line.split()
        assert int(shared) <= 99 * 1024  # the least that a program may have from capability 8.0 on
        assert products == "True"
    assert len(done.stdout.splitlines()) == 2


class _OnGpu(torch.Tensor):
    """Says that it lies on a GPU, where there may be none."""

    device = torch.device("cuda", 0)


def can_transfer(query, keys, labels, top_k, ties):
    return affinity_triton.can_transfer(query, keys, labels, Rule(None, top_k, 0.1, ties))


@pytest.fixture
def on_gpu(monkeypatch):
    """A problem that seems to lie on a GPU on which the kernel runs."""
    monkeypatch.setattr("propagate.propagation.window.Tensor", _OnGpu)
    monkeypatch.setattr(affinity_triton, "kernel", lambda: affinity_triton)
    monkeypatch.setattr(affinity_triton, "runs_on", lambda device: device.type == "cuda")
    query, keys, labels = problem(0)
    return query.as_subclass(_OnGpu), keys.half().as_subclass(_OnGpu), labels.as_subclass(_OnGpu)


def test_what_the_kernel_is_for(on_gpu):
    query, keys, labels = on_gpu
    assert can_transfer(query, keys, labels, 5, "cut")
    assert can_transfer(query, keys.bfloat16(), labels, MOST_TOP_K, "cut")
    assert not can_transfer(query, keys.float(), labels, 5, "cut")  # which asks for scores in float32
    assert not can_transfer(query.half(), keys, labels, 5, "cut")
    assert not can_transfer(query, keys, labels.double(), 5, "cut")
    assert not can_transfer(query, keys, labels, 5, "keep")
    assert not can_transfer(query, keys, labels, MOST_TOP_K + 1, "cut")
    assert not can_transfer(query, keys[:0], labels[:0], 5, "cut")
    assert not can_transfer(*(given.as_subclass(torch.Tensor) for given in on_gpu), 5, "cut")


def test_without_triton_torch_does_it(on_gpu, monkeypatch):
    monkeypatch.setattr(affinity_triton, "kernel", lambda: None)
    assert not can_transfer(*on_gpu, 5, "cut")


def test_no_kernel_where_it_cannot_be_imported(monkeypatch):
    affinity_triton.kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "propagate.propagation.cuda.kernel", None)  # importing it raises ImportError
    monkeypatch.delattr("propagate.propagation.cuda.kernel", raising=False)
    try:
        assert affinity_triton.kernel() is None
    finally:
        affinity_triton.kernel.cache_clear()


def test_it_is_what_propagate_labels_takes(monkeypatch):
    query, keys, labels = problem(1)
    asked = []
    monkeypatch.setattr(affinity_triton, "can_transfer", lambda *given: asked.append(given) or True)
    monkeypatch.setattr(affinity_triton, "transfer", lambda *given: labels[0] * given[3].top_k)
    soft = propagate_labels(query, keys, labels, window=Window("square", 1), top_k=3, temperature=0.1, tile_scores=9)
    assert torch.equal(soft, labels[0] * 3)
    assert [given[3] for given in asked] == [Rule(Window("square", 1), 3, 0.1)]


def test_a_gpu_on_which_it_fails_is_told_of_and_left_to_torch(monkeypatch):
    def fail(*_given, **_options):
        raise RuntimeError("Failed to find C compiler")

    device = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 6))
    monkeypatch.setattr(affinity_triton, "transfer", fail)
    affinity_triton.runs_on.cache_clear()
    try:
        with pytest.warns(SlowTransferWarning, match="does not run here .*Failed to find C compiler"):
            assert not affinity_triton.runs_on(device)
        assert not affinity_triton.runs_on(device)  # and is not told again
    finally:
        affinity_triton.runs_on.cache_clear()


def test_old_gpus_are_not_tried(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    monkeypatch.setattr(affinity_triton, "transfer", lambda *_, **__: pytest.fail("tried"))
    affinity_triton.runs_on.cache_clear()
    try:
        assert not affinity_triton.runs_on(torch.device("cpu"))
    finally:
        affinity_triton.runs_on.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_bounds_what_a_rounded_query_does_to_a_score(dtype):
    query, keys, _ = problem(2, channels=64)
    exact = torch.einsum("chw,nchw->nhw", query.double(), keys.to(dtype).double())
    rounded = torch.einsum("chw,nchw->nhw", query.to(dtype).double(), keys.to(dtype).double())
    assert (exact - rounded).abs().max() <= rounding(dtype) * keys.to(dtype).float().norm(dim=1).max()


def test_the_window_as_the_kernel_knows_it():
    for shape, radii in (("square", (0, 1, 2.5, 40)), ("circle", (1, 2, 2.5, 4.3, 40))):
        for radius in radii:
            window = Window(shape, radius, exempt=(1,))
            bound, free, reach, limit = affinity_triton.split_by_reach(window, 3, (9, 12))
            dy, dx = torch.arange(-8, 9)[:, None], torch.arange(-11, 12)[None]
            near = (dy.abs() <= reach) & (dx.abs() <= reach) if shape == "square" else dy**2 + dx**2 <= limit
            assert torch.equal(near, window.contains(dy, dx))
            assert (bound, free) == ([0, 2], [1])
    assert affinity_triton.split_by_reach(Window("circle", 0), 2, (3, 3))[:2] == ([], [])
    assert affinity_triton.split_by_reach(None, 2, (3, 3))[:2] == ([], [0, 1])


def test_the_blocks_are_what_products_of_matrices_need():
    tile, keys, channels = Blocks()
    assert tile[0] * tile[1] >= 16
    assert all(size & (size - 1) == 0 for size in (*tile, keys, channels))
    assert min(keys, channels) >= 16


def test_importing_the_package_does_not_load_triton():
    done = run(
        "-c",
        "import sys, propagate.propagation.propagator; print('triton' in sys.modules)",
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")
