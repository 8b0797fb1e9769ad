from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.propagation.affinity import normalize
from propagate.propagation.cpu import transfer as affinity_cpu
from propagate.propagation.cpu.keys import RoundedKeys, rounded_queries
from propagate.propagation.window import Window
from tests.propagation.cpu.test_transfer import transfer
from tests.propagation.test_affinity import dense, problem

pytestmark = pytest.mark.skipif(affinity_cpu.fastest_precision() != "int8", reason="no fast integer products here")

OPTIONS = {"top_k": 5, "temperature": 0.1}


@pytest.fixture
def rounded_frames(monkeypatch):
    """The frames that were rounded, in a list for every call."""
    loops = affinity_cpu.kernels()
    calls = []

    def spy(rows, which, places, each, band, *rest, original=loops.round_keys):
        calls.append(which.tolist())
        original(rows, which, places, each, band, *rest)

    monkeypatch.setattr(loops, "round_keys", spy)
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("window", [None, Window("square", 2), Window("circle", 3, exempt=(0,))])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bank_that_grows_and_is_written_in_place_gives_the_same_bits(window, dtype, threads):
    generator = torch.Generator().manual_seed(0)
    bank = torch.zeros(4, 10, 7, 18, dtype=dtype).contiguous(memory_format=torch.channels_last)
    labels = torch.rand(4, 2, 7, 18, generator=generator)
    kept, stamps = RoundedKeys(), []
    for step in range(9):
        slot = step if step < 4 else 1 + step % 3
        bank[slot] = normalize(torch.randn(10, 7, 18, generator=generator))
        stamps[slot : slot + 1] = [step]
        query = normalize(torch.randn(10, 7, 18, generator=generator))
        context = query, bank[: len(stamps)], labels[: len(stamps)]
        options = {**OPTIONS, "window": window, "threads": threads}
        soft = transfer(*context, **options, rounded=kept, stamps=tuple(stamps))
        assert torch.equal(soft, transfer(*context, **options))


def test_only_frames_with_a_new_number_are_rounded(rounded_frames):
    query, keys, labels = problem(0, frames=4, height=4)
    kept = RoundedKeys()
    for stamps, expected in [((0, 1, 2, 3), [0, 1, 2, 3]), ((0, 1, 2, 3), None), ((0, 4, 2, 5), [1, 3])]:
        rounded_frames.clear()
        transfer(query, keys, labels, window=Window("square", 2), **OPTIONS, rounded=kept, stamps=stamps)
        assert rounded_frames == ([] if expected is None else [expected])


def test_without_numbers_nothing_is_kept(rounded_frames):
    query, keys, labels = problem(0, frames=2, height=4)
    kept = RoundedKeys()
    for _ in range(2):
        soft = transfer(query, keys, labels, window=None, **OPTIONS, rounded=kept)
        torch.testing.assert_close(
            soft, dense(query, keys, labels, window=None, **OPTIONS, ties="cut"), atol=1e-5, rtol=0
        )
        keys.mul_(-1)
    assert rounded_frames == [[0, 1], [0, 1]]


def test_another_window_or_grid_takes_everything_anew():
    kept = RoundedKeys()
    for window, size in [
        (None, (5, 8)),
        (Window("square", 2), (5, 8)),
        (Window("square", 2, (1,)), (5, 8)),
        (None, (8, 5)),
    ]:
        query, keys, labels = problem(1, height=size[0], width=size[1])
        options = {**OPTIONS, "window": window}
        soft = transfer(query, keys, labels, **options, rounded=kept, stamps=(0, 1, 2))
        assert torch.equal(soft, transfer(query, keys, labels, **options))


def test_other_frames_exempt_from_the_window_are_not_mixed_up():
    query, keys, labels = problem(2)
    kept = RoundedKeys()
    for exempt in [(0,), (2,), (1,), (0,)]:
        options = {**OPTIONS, "window": Window("square", 1, exempt)}
        soft = transfer(query, keys, labels, **options, rounded=kept, stamps=(7, 8, 9))
        assert torch.equal(soft, transfer(query, keys, labels, **options))


def test_exact_though_the_mean_is_that_of_frames_long_gone():
    query, keys, labels = problem(3, channels=16)
    kept = RoundedKeys()
    options = {**OPTIONS, "window": Window("square", 3)}
    far = normalize(keys + 5 * torch.eye(16)[0][:, None, None])
    transfer(query, far, labels, **options, rounded=kept, stamps=(0, 1, 2))
    soft = transfer(query, keys, labels, **options, rounded=kept, stamps=(3, 4, 5))
    torch.testing.assert_close(soft, dense(query, keys, labels, **options, ties="cut"), atol=1e-5, rtol=0)


def test_two_banks_do_not_disturb_each_other():
    options = {**OPTIONS, "window": Window("square", 2)}
    banks = [(problem(seed), RoundedKeys()) for seed in (4, 5)]
    for _ in range(2):
        for (query, keys, labels), kept in banks:
            soft = transfer(query, keys, labels, **options, rounded=kept, stamps=(0, 1, 2))
            assert torch.equal(soft, transfer(query, keys, labels, **options))


def test_a_rounding_that_was_interrupted_is_done_again(monkeypatch):
    query, keys, labels = problem(6)
    kept = RoundedKeys()
    options = {**OPTIONS, "window": Window("square", 2)}
    transfer(query, keys, labels, **options, rounded=kept, stamps=(0, 1, 2))
    keys[1] = keys[1].flip(-1)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(affinity_cpu.kernels(), "round_keys", interrupt)
        with pytest.raises(KeyboardInterrupt):
            transfer(query, keys, labels, **options, rounded=kept, stamps=(0, 3, 2))
    soft = transfer(query, keys, labels, **options, rounded=kept, stamps=(0, 3, 2))
    assert torch.equal(soft, transfer(query, keys, labels, **options))


def test_codes_and_remainder_are_the_vectors():
    _, keys, _ = problem(7, frames=2, height=3, width=11, channels=6)
    loops = affinity_cpu.kernels()
    rows = keys.permute(0, 2, 3, 1).contiguous()
    parts = np.array([1]), np.array([0])
    near, free, mean = RoundedKeys().update(loops, rows, parts, None, lambda function, things: [*map(function, things)])
    for found, frame in ((near, 1), (free, 0)):
        words = found.codes.view(np.uint8).reshape(*found.codes.shape, 4)  # row, block, four, key, channel of the four
        codes = words.transpose(0, 1, 3, 2, 4).reshape(len(words), -1, 8).astype(np.float32) - 128
        cells = 33 if len(words) == 1 else 11
        given = (rows[frame] - mean).numpy().reshape(len(words), cells, 6)
        back = codes[:, :cells, :6] * found.scales[:, :cells, None]
        error = np.linalg.norm(given - back, axis=2)
        assert (error <= found.errors[:, :cells] * 1.00001).all()
        assert error.max() < 0.01
        np.testing.assert_allclose(found.lengths[:, :cells], np.linalg.norm(given, axis=2), rtol=1e-5)
        assert (codes[:, :cells, 6:] == 0).all()


def test_the_largest_codes_multiply_without_error():
    loops = affinity_cpu.kernels()
    channels = affinity_cpu._MOST_CHANNELS
    for sign in (1, -1):
        queries = rounded_queries(loops, torch.full((1, 8, channels), float(sign)), loops.QUERIES)
        assert (queries.codes == 127 * sign).all()
        for blocks in (1, 2, 3):
            keys = np.full((blocks, channels // 4, 16), 0xFFFFFFFF, np.uint32)  # 255 - 128 = 127 each
            scores = np.zeros(8 * blocks * 16, np.float32)
            scales = np.ones(blocks * 16, np.float32)
            loops.multiply_row(
                keys, scales, (0, blocks), queries.codes[None, 0], queries.offsets[None, 0], scores, 0, blocks * 16
            )
            assert (scores == np.float32(sign * 127 * 127 * channels)).all()
