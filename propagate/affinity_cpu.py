"""The transfer step on a CPU: coarse scores by products of small integers, exact scores of the few keys that count.

The definition is that of `propagate.affinity.propagate_labels`, which comes here where it can. The result is exact:

Let q be a query and k a key, both real vectors, and m any fixed vector (the keys' mean: it makes them shorter). The
order of the keys by q.k is their order by q.(k - m). Rounding gives q = q' + e and k - m = k' + d with q', k' of int8
times a scale each, whose product is computed in integers, without error. By Cauchy and Schwarz

    |q.(k - m) - q'.k'| = |e.(k - m) + q'.d| <= |e| max |k - m| + (|q| + |e|) |d|.

All lengths on the right are measured. The k keys that are best by q'.k' are scored in float32 on the vectors
themselves; the k-th best of all float32 scores is not below the least of these. A key whose coarse score plus its bound
is below that least cannot be among the best and is left out; all others are scored in float32 too, and the best of them
are the result. A float32 sum of c products is off by at most c 2^-24 |q| |k|, in whatever order; the bound takes four
times that, for the three such sums that meet and for what else is rounded. So which keys are left out depends on tiles,
threads and the coarse scores' precision, and the result does not.

What makes it fast: where the CPU has VNNI, integers multiply four times as fast as float32; keys lie in the order (row,
column, frame), so that those of one row that a strip of queries can reach are one matrix as they lie, and meet only the
rows of queries that can reach them; and tiles are done by threads that never wait for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from threading import Barrier
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from propagate.affinity import Ties, Window

Precision = Literal["int8", "float32"]

_TILE_SCORES = 2**22  # 16 MiB of scores per thread
_BAND = 4  # rows that a thread rounds at a time
_WIDE = 8  # columns of a tile: wider ones meet more keys in vain, narrower ones make the products small
_MOST_THREADS = 16  # each holds a tile's scores
_MOST_TOP_K = 128  # the best are kept in a sorted list, whose cost grows with its length
_MOST_CHANNELS = 8192  # up to here rounding of the measured lengths is within the 0.1 % that are added to them


@cache
def kernels() -> ModuleType | None:
    """The compiled inner loops, or None where numba is not to be had."""
    try:
        from propagate import affinity_kernels
    except (ImportError, OSError):
        return None
    return affinity_kernels


def can_transfer(query: Tensor, keys: Tensor, labels: Tensor, top_k: int) -> bool:
    """Whether `transfer` knows these tensors and is the faster way."""
    return (
        type(query) is type(keys) is type(labels) is Tensor  # others may have no memory that numpy could read
        and query.device.type == keys.device.type == labels.device.type == "cpu"
        and query.dtype == labels.dtype == torch.float32
        and keys.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and top_k <= _MOST_TOP_K
        and min(*keys.shape, *labels.shape) > 0
        and kernels() is not None
    )


@cache
def fastest_precision() -> Precision:
    """Of the coarse scores: "int8" where the CPU multiplies integers fast and torch does it without error."""
    if not getattr(torch.cpu, "_is_vnni_supported", lambda: False)():
        return "float32"
    # the largest products there are: kernels for older CPUs add two of them in 16 bits, which is too few
    codes = torch.full((16, 64), 127, dtype=torch.int8)
    try:
        right = all(
            torch.equal(torch._int_mm(codes, (sign * codes).T), torch.full((16, 16), sign * 127 * 127 * 64).int())
            for sign in (1, -1)
        )
    except (AttributeError, RuntimeError):
        return "float32"
    return "int8" if right else "float32"


class _Vectors(NamedTuple):
    """Vectors as the coarse scores take them.

    Attributes:
        codes: (h, w, n, c) int8 or float32.
        facts: scale, length of what rounding took, and own length, (h, w, n) float32 each.
    """

    codes: Tensor
    facts: tuple[Tensor, Tensor, Tensor]


_Run = Callable[[Callable[[Any], None], list[Any]], None]


@torch.no_grad()
def transfer(
    query: Float32[Tensor, "c h w"],
    keys: Float[Tensor, "n c h w"],
    labels: Float32[Tensor, "n l h w"],
    *,
    window: Window | None,
    top_k: int,
    temperature: float,
    ties: Ties = "cut",
    tile_scores: int | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
) -> Float32[Tensor, "l h w"]:
    """See `propagate.affinity.propagate_labels`.

    Args:
        query, keys, labels, window, top_k, temperature, ties: as there; the features may be of any length.
        tile_scores: scores (4 bytes each) that one thread holds at a time.
        precision: of the coarse scores; None: `fastest_precision`. The result does not depend on it.
        threads: None: as many as torch would take. The result does not depend on it.
    """
    loops = kernels()
    assert loops is not None
    frames, channels, height, width = keys.shape
    grid = height, width
    if precision is None:
        precision = "float32" if channels > _MOST_CHANNELS else fastest_precision()
    run = _pool_map(min(threads or torch.get_num_threads(), _MOST_THREADS))
    rows = keys.detach().permute(0, 2, 3, 1).contiguous()
    query_rows = query.detach().permute(1, 2, 0).contiguous()
    label_rows = labels.detach().permute(0, 2, 3, 1).contiguous()
    near, free, half = _reach(window, frames, grid)
    if not len(near) + len(free):
        return torch.zeros_like(labels[0])
    rows_off, columns_off = len(half) - 1, int(half.max())

    if precision == "int8":
        mean = rows[:, ::4, ::4].flatten(0, 2).float().mean(0)
        near_keys, free_keys = (_rounded(loops, rows, part, mean, run) for part in (near, free))
        asked = _rounded(loops, query_rows[None], np.zeros(1, np.int64), torch.zeros_like(mean), run)
    else:
        mean = torch.zeros(channels)
        near_keys, free_keys = (_as_they_are(rows[part].float()) for part in (near, free))
        asked = _as_they_are(query_rows[None])
    scales, errors, lengths = (
        torch.cat([near_fact.flatten(), free_fact.flatten()])
        for near_fact, free_fact in zip(near_keys.facts, free_keys.facts, strict=True)
    )
    query_codes = asked.codes.squeeze(2)
    result = torch.empty(height, width, label_rows.shape[3])
    given = (
        (near, free), scales.numpy(), errors.numpy(), grid, tuple(fact.squeeze(2).numpy() for fact in asked.facts),
        (np.float32(errors.max()), np.float32(lengths.max())), mean.numpy(), query_rows.numpy(), *_readable(rows),
        label_rows.numpy(), top_k, float(temperature), ties == "keep", result.numpy(),
    )  # fmt: skip

    def one_tile(tile: tuple[int, int, int, int]) -> None:
        top, left, tall, wide = tile
        box = (
            *(max(0, top - rows_off), min(height, top + tall + rows_off)),
            *(max(0, left - columns_off), min(width, left + wide + columns_off)),
        )
        mine = query_codes[top : top + tall, left : left + wide].reshape(tall * wide, channels)
        # where the scores of each row of keys begin and with which row of queries; the free keys come last
        begin, first = np.zeros(height + 1, np.int64), np.zeros(height, np.int64)
        pairs = []
        for row in range(box[0], box[1] if len(near) else box[0]):
            low, high = max(top, row - rows_off), min(top + tall, row + rows_off + 1)
            pairs.append((mine[(low - top) * wide : (high - top) * wide], near_keys.codes[row, box[2] : box[3]]))
            begin[row + 1], first[row] = begin[row] + (high - low) * wide * (box[3] - box[2]) * len(near), low
        begin[height] = begin.max()
        if len(free):
            pairs.append((mine, free_keys.codes))
        loops.select(_products(pairs).numpy(), begin, first, box, half, tile, *given)

    run(one_tile, _tiles(grid, _tile_size(grid, half, len(near), len(free), tile_scores or _TILE_SCORES)))
    return result.permute(2, 0, 1)


def _reach(
    window: Window | None, frames: int, grid: tuple[int, int]
) -> tuple[Int64[ndarray, " near"], Int64[ndarray, " free"], Int64[ndarray, " rows"]]:
    """Frames inside the window, frames that none binds, and columns reached to either side by the distance of rows."""
    everything = np.arange(frames)
    if window is None:
        return everything[:0], everything, np.zeros(1, np.int64)
    free = everything[np.isin(everything, window.exempt)]
    if window.reach < 0:
        return everything[:0], free, np.zeros(1, np.int64)
    dy, dx = torch.arange(min(window.reach + 1, grid[0])), torch.arange(grid[1])
    half = window.contains(dy[:, None], dx[None]).sum(1).numpy() - 1
    return everything[~np.isin(everything, window.exempt)], free, half


def _rounded(
    loops: ModuleType,
    rows: Float[Tensor, "n h w c"],
    frames: Int64[ndarray, " m"],
    mean: Float32[Tensor, " c"],
    run: _Run,
) -> _Vectors:
    """These frames' vectors, less the mean, as int8."""
    _, height, width, channels = rows.shape
    codes = torch.empty(height, width, len(frames), channels, dtype=torch.int8)
    scales, errors, lengths = torch.empty(3, height, width, len(frames))

    def one_band(band: tuple[int, int]) -> None:
        part = slice(*band)
        given, first, which = rows, band[0], frames
        if rows.dtype != torch.float32:
            given, first, which = rows[frames, part].float(), 0, np.arange(len(frames))
        written = (whole[part].numpy() for whole in (codes, scales, errors, lengths))
        loops.quantize(given.numpy(), which, first, mean.numpy(), *written)

    if len(frames):
        run(one_band, [(top, min(top + _BAND, height)) for top in range(0, height, _BAND)])
    return _Vectors(codes, (scales, errors, lengths))


def _as_they_are(rows: Float32[Tensor, "n h w c"]) -> _Vectors:
    """Without any rounding."""
    codes = rows.permute(1, 2, 0, 3).contiguous()
    lengths = codes.norm(dim=-1) + 1e-17  # squares below 1e-38 count as 0
    return _Vectors(codes, (torch.ones_like(lengths), torch.zeros_like(lengths), lengths))


def _readable(rows: Float[Tensor, "n h w c"]) -> tuple[Shaped[ndarray, "n h w c"], Float32[ndarray, " values"] | None]:
    """The vectors as numpy knows them: half precision as its 16 bits, beside a table of the numbers these stand for."""
    if rows.dtype == torch.float32:
        return rows.numpy(), None
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    return rows.view(torch.uint16).numpy(), bits.view(rows.dtype).float().numpy()


def _products(pairs: list[tuple[Tensor, Tensor]]) -> Shaped[Tensor, " scores"]:
    """Products of all queries (q, c) with all keys (..., c) of each pair, one after the other."""
    flat = [(queries, keys.flatten(0, -2)) for queries, keys in pairs]
    whole = pairs[0][0].dtype == torch.int8
    multiply = torch._int_mm if whole else torch.mm
    scores = torch.empty(sum(len(a) * len(b) for a, b in flat), dtype=torch.int32 if whole else torch.float32)
    done = 0
    for queries, keys in flat:
        size = len(queries) * len(keys)
        multiply(queries, keys.T, out=scores[done : done + size].view(len(queries), len(keys)))
        done += size
    return scores


def _tile_size(
    grid: tuple[int, int], half: Int64[ndarray, " rows"], near: int, free: int, tile_scores: int
) -> tuple[int, int]:
    """(rows, columns) of the queries of a tile, as many as the scores allow, at least one."""
    height, width = grid
    tall = min(2 * len(half) - 1, height) * near

    def keys(wide: int) -> int:
        return tall * min(wide + 2 * int(half.max()), width) + free * height * width

    wide = min(_WIDE, width)
    while wide > 1 and wide * keys(wide) > tile_scores:
        wide //= 2
    parts = math.ceil(height / max(1, tile_scores // max(1, wide * keys(wide))))
    return math.ceil(height / parts), wide


def _tiles(grid: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(first row, first column, rows, columns) of each."""
    return [
        (top, left, min(size[0], grid[0] - top), min(size[1], grid[1] - left))
        for left in range(0, grid[1], size[1])
        for top in range(0, grid[0], size[0])
    ]


def _pool_map(threads: int) -> _Run:
    """A function that calls a function with each of some things, `threads` at a time."""

    def run(function: Callable[[Any], None], things: list[Any]) -> None:
        if threads == 1:
            for thing in things:
                function(thing)
        else:
            for _ in _pool(threads).map(function, things):  # raises what a thread raised
                pass

    return run


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose torch operations take one thread each: torch's own would wait for each other at every product."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="transfer")
    # torch takes the number for a thread that sets it, and also for threads that are yet to come
    usual = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def start() -> None:
        torch.set_num_threads(1)
        ready.wait()

    for _ in range(threads):
        pool.submit(start)
    ready.wait()
    torch.set_num_threads(usual)
    return pool


if hasattr(os, "register_at_fork"):  # a child has the pool's object and none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
