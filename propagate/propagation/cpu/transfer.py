"""The transfer step on a CPU: coarse scores by products of small integers, exact scores of the few keys that count.

`affinity.propagate_labels` defines the step and calls this backend where it applies. The result is exact:

Let q be a query and k a key, both real vectors, and m any fixed vector (the keys' mean: it makes them shorter). The
order of the keys by q.k is their order by q.(k - m). Rounding gives q = q' + e and k - m = k' + d with q', k' of int8
times a scale each, whose product is computed in integers, without error. By Cauchy and Schwarz

    |q.(k - m) - q'.k'| = |e.(k - m) + q'.d| <= |e| max |k - m| + (|q| + |e|) |d|.

All lengths on the right are measured. The k best keys by q'.k' are scored in float32 on the vectors themselves; the
k-th best of all float32 scores is not below the minimum of these. A key whose coarse score plus its bound is below that
minimum cannot be among the best and is skipped; all others are scored in float32, and the best of them are the result.
The error of a float32 sum of c products is at most c 2^-24 |q| |k|, in any order; the bound takes four times that, for
the three such sums involved and for other rounding. So the set of skipped keys depends on tiles, threads and the coarse
scores' precision, and the result does not.

Why it is fast: with VNNI, integers multiply four times as fast as float32; keys lie in the order (row, column, frame),
so that the keys of one row within reach of a strip of queries are neighbours, and meet only rows of queries that reach
them; scores are read while in the CPU's cache; rounded keys are cached between steps (`cpu.keys`), since a step adds
one frame to the memory; and threads process tiles without waiting for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from propagate.propagation.cpu.keys import Codes, RoundedKeys, rounded_queries
from propagate.propagation.window import Rule, Window, are_plain, load_kernels, split_frames
from propagate.threads import MOST_THREADS, in_threads, usual_threads

Precision = Literal["int8", "float32"]
_Rows = Float32[Tensor, "h w c"]
_Rounded = tuple[Codes, Codes, Float32[Tensor, " c"]]
_OneTile = Callable[[tuple[int, int, int, int]], None]


class _Reach(NamedTuple):
    """Frames inside the window, frames searched everywhere, and columns reached to a side by the distance of rows."""

    near: Int64[ndarray, " near"]
    free: Int64[ndarray, " free"]
    half: Int64[ndarray, " rows"]

    def keys(self, grid: tuple[int, int], wide: int) -> int:
        """The largest number of keys within reach of `wide` queries side by side."""
        rows, columns = min(2 * len(self.half) - 1, grid[0]), min(wide + 2 * int(self.half.max()), grid[1])
        return rows * columns * len(self.near) + grid[0] * grid[1] * len(self.free)


_TILE_SCORES = 2**22  # 16 MiB of scores per thread, for products of whole matrices
_STRIP_SCORES = 2**17  # 512 KiB, which stay in the CPU's cache
_STRIP_ROWS = 15  # a balance between few large pieces and enough of them for all threads
_WIDE = 8  # columns of a tile: wider ones score more unreachable keys, narrower ones make the products small
MOST_TOP_K = 128  # the best are kept in a sorted list, whose cost grows with its length
_MOST_CHANNELS = 8192  # up to here rounding of the measured lengths is within the 0.1 % added to them


@cache
def kernels() -> ModuleType | None:
    """Return the compiled inner loops; None where numba cannot be imported."""
    return load_kernels("propagate.propagation.cpu.kernels")


def can_transfer(query: Tensor, keys: Tensor, labels: Tensor, top_k: int) -> bool:
    """Return whether `transfer` supports these tensors and is the faster backend."""
    return (
        are_plain("cpu", query, keys, labels)
        and query.dtype == labels.dtype == torch.float32
        and keys.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and top_k <= MOST_TOP_K
        and min(*keys.shape, *labels.shape) > 0
        and kernels() is not None
    )


@cache
def fastest_precision() -> Precision:
    """Return the precision of coarse scores: "int8" where the CPU multiplies integers fast."""
    loops = kernels()
    return "int8" if loops is not None and loops.multiplies_integers() else "float32"


@torch.no_grad()
def transfer(
    query: Float32[Tensor, "c h w"],
    keys: Float[Tensor, "n c h w"],
    labels: Float32[Tensor, "n l h w"],
    rule: Rule,
    *,
    tile_scores: int | None = None,
    rounded: RoundedKeys | None = None,
    stamps: tuple[int, ...] | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
) -> Float32[Tensor, "l h w"]:
    """See `propagate.propagation.affinity.propagate_labels`; the features may be of any length.

    `tile_scores` counts scores (4 bytes) that one thread holds at a time, if that is enough for the smallest tile.
    `precision` is that of the coarse scores, by default `fastest_precision`. The result depends on none of the options.
    """
    loops = kernels()
    assert loops is not None
    frames, channels, height, width = keys.shape
    if precision is None:
        precision = "float32" if channels > _MOST_CHANNELS else fastest_precision()
    run = in_threads(min(threads, MOST_THREADS) if threads else usual_threads())
    rows = keys.detach().permute(0, 2, 3, 1).contiguous()
    query_rows = query.detach().permute(1, 2, 0).contiguous()
    label_rows = labels.detach().permute(0, 2, 3, 1).contiguous()
    reach = _reach(rule.window, frames, (height, width))
    if not len(reach.near) + len(reach.free):
        return torch.zeros_like(labels[0])
    result = torch.empty(height, width, label_rows.shape[3])
    exact = (
        query_rows.numpy(), *_readable(rows), label_rows.numpy(), rule.top_k, float(rule.temperature),
        rule.ties == "keep", result.numpy(),
    )  # fmt: skip
    if precision == "float32":
        one_tile, size = _by_floats(loops, query_rows, rows, reach, tile_scores or _TILE_SCORES, exact)
    else:
        codes = (rounded or RoundedKeys()).update(loops, rows, reach[:2], stamps, run)
        one_tile, size = _by_integers(loops, query_rows, codes, reach, tile_scores or _STRIP_SCORES, exact)
    run(one_tile, _tiles((height, width), size))
    return result.permute(2, 0, 1)


def _by_integers(
    loops: ModuleType, query_rows: _Rows, rounded: _Rounded, reach: _Reach, tile_scores: int, exact: tuple[Any, ...]
) -> tuple[_OneTile, tuple[int, int]]:
    """Return the function for one tile with integer products, and the size of tiles."""
    near, free, mean = rounded
    queries = rounded_queries(loops, query_rows, loops.QUERIES)
    errors = np.concatenate([near.errors.ravel(), free.errors.ravel()])
    bounds = np.float32(errors.max()), max(np.float32(part.lengths.max(initial=0)) for part in (near, free))
    given = reach.half, reach[:2], near.scales.shape[1], errors, queries.facts, bounds, mean.numpy(), *exact
    height, width, _ = query_rows.shape
    tall = max(1, tile_scores // max(1, loops.QUERIES * reach.keys((height, width), loops.QUERIES)))

    def one_strip(strip: tuple[int, int, int, int]) -> None:
        loops.select_by_integers(
            (near.codes, near.scales), (free.codes, free.scales), queries.codes, queries.offsets, strip, tall, *given
        )

    return one_strip, (_STRIP_ROWS, loops.QUERIES)


def _by_floats(
    loops: ModuleType, query_rows: _Rows, rows: Tensor, reach: _Reach, tile_scores: int, exact: tuple[Any, ...]
) -> tuple[_OneTile, tuple[int, int]]:
    """Return the function for one tile with float32 products by torch, and the size of tiles."""
    height, width, channels = query_rows.shape
    near, free, half = reach
    near_keys, free_keys = (rows[part].float().permute(1, 2, 0, 3).contiguous() for part in (near, free))
    lengths = np.float32(max(float(part.norm(dim=-1).max()) for part in (near_keys, free_keys) if part.numel()) + 1e-17)
    errors = np.zeros(height * width * (len(near) + len(free)), np.float32)
    norms = query_rows.norm(dim=-1).numpy() + np.float32(1e-17)  # squares below 1e-38 underflow to 0
    query_facts = np.ones_like(norms), np.zeros_like(norms), norms
    bounds, mean = (np.float32(0), lengths), np.zeros(channels, np.float32)
    given = reach[:2], width * len(near), errors, query_facts, bounds, mean, *exact
    rows_off, columns_off = len(half) - 1, int(half.max())

    def one_tile(tile: tuple[int, int, int, int]) -> None:
        top, left, tall, wide = tile
        box = 0, 0, 0, 0
        if len(near):
            box = (
                *(max(0, top - rows_off), min(height, top + tall + rows_off)),
                *(max(0, left - columns_off), min(width, left + wide + columns_off)),
            )
        mine = query_rows[top : top + tall, left : left + wide].reshape(tall * wide, channels)
        step = (box[3] - box[2]) * len(near)
        # where the scores of each row of keys begin, and with which row of queries; the free keys come last
        begin, first = np.zeros(height + 1, np.int64), np.zeros(height, np.int64)
        pairs, done = [], 0
        for row in range(box[0], box[1]):
            low, high = max(top, row - rows_off), min(top + tall, row + rows_off + 1)
            reached = mine[(low - top) * wide : (high - top) * wide]
            pairs.append((reached, near_keys[row, box[2] : box[3]].flatten(0, 1)))
            begin[row], first[row] = done, low
            done += (high - low) * wide * step
        begin[height] = done
        pairs.append((mine, free_keys.flatten(0, 2)))
        line = box[2] * len(near), step, free_keys[..., 0].numel()
        loops.select(_products(pairs, loops.LANES).numpy(), begin, first, line, box, half, tile, wide, *given)

    return one_tile, _tile_size((height, width), reach, tile_scores)


def _reach(window: Window | None, frames: int, grid: tuple[int, int]) -> _Reach:
    near, free = (np.array(part, np.int64) for part in split_frames(window, frames))
    if window is None or window.reach < 0:
        return _Reach(near[:0], free, np.zeros(1, np.int64))
    dy, dx = torch.arange(min(window.reach + 1, grid[0])), torch.arange(grid[1])
    return _Reach(near, free, window.contains(dy[:, None], dx[None]).sum(1).numpy() - 1)


def _readable(rows: Float[Tensor, "n h w c"]) -> tuple[Shaped[ndarray, "n h w c"], Float32[ndarray, " values"] | None]:
    """The vectors for numpy: half precision as its 16 bits, with a table of the numbers that these encode."""
    if rows.dtype == torch.float32:
        return rows.numpy(), None
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    return rows.view(torch.uint16).numpy(), bits.view(rows.dtype).float().numpy()


def _products(pairs: list[tuple[Float32[Tensor, "_ c"], Float32[Tensor, "_ c"]]], beyond: int) -> Float32[Tensor, " m"]:
    """Products of all queries with all keys of each pair, one after the other, and `beyond` unused values."""
    scores = torch.empty(sum(len(queries) * len(keys) for queries, keys in pairs) + beyond)
    done = 0
    for queries, keys in pairs:
        size = len(queries) * len(keys)
        torch.mm(queries, keys.T, out=scores[done : done + size].view(len(queries), len(keys)))
        done += size
    return scores


def _tile_size(grid: tuple[int, int], reach: _Reach, tile_scores: int) -> tuple[int, int]:
    """(rows, columns) of a tile of queries, as many as the scores allow, at least one."""
    wide = min(_WIDE, grid[1])
    while wide > 1 and wide * reach.keys(grid, wide) > tile_scores:
        wide //= 2
    fitting = max(1, tile_scores // max(1, wide * reach.keys(grid, wide)))
    return math.ceil(grid[0] / math.ceil(grid[0] / fitting)), wide


def _tiles(grid: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(first row, first column, rows, columns) of each."""
    return [
        (top, left, min(size[0], grid[0] - top), min(size[1], grid[1] - left))
        for left in range(0, grid[1], size[1])
        for top in range(0, grid[0], size[0])
    ]
