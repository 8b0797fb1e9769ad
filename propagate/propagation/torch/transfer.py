"""The transfer step in torch operations: any device, any precision.

Queries are processed in tiles. A tile gathers only the keys that its queries can reach, so the working memory is one
tile's scores and the full affinity is never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from propagate.propagation.window import Keys, Labels, Query, Rule, Soft, Window, grid_of, split_frames

# a tile's scores should stay in a CPU's cache between passes; a GPU needs large tiles to be busy
_TILE_SCORES_CPU, _TILE_SCORES_GPU = 2**20, 2**26
_GROUP = 16


def transfer(query: Query, keys: Keys, labels: Labels, rule: Rule, tile_scores: int | None = None) -> Soft:
    """See `propagate.propagation.affinity.propagate_labels`; for any device and precision."""
    frames, _, height, width = keys.shape
    label_rows = labels.permute(0, 2, 3, 1).reshape(frames * height * width, -1)
    result = torch.empty(height, width, label_rows.shape[1], dtype=labels.dtype, device=labels.device)
    for ys, xs, scores, columns in _scored_tiles(query, keys, rule.window, tile_scores):
        if not len(columns):
            result[ys, xs] = 0
            continue
        result[ys, xs] = _weigh(scores, columns, label_rows, rule).view(_length(ys), _length(xs), -1)
    return result.permute(2, 0, 1)


@torch.no_grad()
def best_keys(
    query: Query, keys: Keys, *, window: Window | None, top_k: int, tile_scores: int | None = None
) -> Int[Tensor, "h w k"]:
    """Return the keys that `propagate_labels` with `ties="cut"` would weigh, for every query cell, in no order.

    They are numbered frame * h * w + row * w + column; -1 where fewer can be reached.
    """
    result = torch.full((*grid_of(query), top_k), -1, device=keys.device)
    for ys, xs, scores, columns in _scored_tiles(query, keys, window, tile_scores):
        values, chosen = _best(scores, top_k)
        found = columns[chosen.clamp_(max=len(columns) - 1)].masked_fill_(values == -torch.inf, -1)
        result[ys, xs, : found.shape[1]] = found.view(_length(ys), _length(xs), -1)
    return result


def _scored_tiles(
    query: Query, keys: Keys, window: Window | None, tile_scores: int | None
) -> Iterator[tuple[slice, slice, Float[Tensor, "q p"], Int[Tensor, " m"]]]:
    """Yield rows and columns of every tile of queries, its scores with all keys it reaches, and these keys' numbers."""
    frames, channels, height, width = keys.shape
    key_rows = keys.permute(0, 2, 3, 1).contiguous()
    query_rows = query.permute(1, 2, 0)
    index = torch.arange(frames * height * width, device=keys.device).view(frames, height, width)
    bound, free = split_frames(window, frames)
    everywhere = key_rows[free].reshape(-1, channels), index[free].flatten()
    bound_rows, bound_index = (key_rows[bound], index[bound]) if free else (key_rows, index)

    tall, wide = tile_size(
        (height, width), len(bound), len(free), window, tile_scores or default_tile_scores(keys.device.type)
    )
    for top, left in product(range(0, height, tall), range(0, width, wide)):
        ys, xs = slice(top, min(top + tall, height)), slice(left, min(left + wide, width))
        tile = query_rows[ys, xs].reshape(-1, channels)
        found, columns = everywhere
        hiding = None
        if bound and window is not None:
            near_y, near_x = _reachable(ys, height, window.reach), _reachable(xs, width, window.reach)
            near = bound_rows[:, near_y, near_x].reshape(-1, channels)
            found = torch.cat([near, found]) if free else near
            columns = torch.cat([bound_index[:, near_y, near_x].flatten(), columns])
            sizes = (_length(ys), _length(xs)), (_length(near_y), _length(near_x))
            offset = near_y.start - ys.start, near_x.start - xs.start
            hiding = hiding_mask(*sizes, offset, replace(window, exempt=()), keys.device)
        yield ys, xs, _scores(tile, found.to(tile.dtype), hiding, len(bound)), columns


def _scores(
    tile: Float[Tensor, "q c"], keys: Float[Tensor, "m c"], hiding: Float[Tensor, "q r"] | None, bound: int
) -> Float[Tensor, "q p"]:
    """Cosines, -inf where the window hides the key; columns are padded with -inf to whole groups."""
    count = len(keys)
    padded = -(-count // _GROUP) * _GROUP
    scores = tile.new_empty(len(tile), padded)
    torch.mm(tile, keys.T, out=scores[:, :count])
    scores[:, count:] = -torch.inf
    if hiding is not None:
        region = hiding.shape[1]
        scores[:, : bound * region].view(len(tile), bound, region).add_(hiding.unsqueeze(1))
    return scores


def _best(scores: Float[Tensor, "q p"], top_k: int) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k largest scores of every row and their columns; equals top-k except for the choice among ties.

    They lie in the k groups of columns with the largest maxima. Maxima take one fast pass; the slow sort then sees only
    the maxima and k groups.
    """
    groups = scores.shape[1] // _GROUP
    if groups <= 2 * top_k:
        few = scores.topk(min(top_k, scores.shape[1]), sorted=False)
        return few.values, few.indices
    grouped = scores.view(-1, groups, _GROUP)
    chosen = grouped.amax(-1).topk(top_k, sorted=False).indices
    candidates = grouped.gather(1, chosen.unsqueeze(-1).expand(-1, -1, _GROUP)).flatten(1)
    values, place = candidates.topk(top_k, sorted=False)
    return values, chosen.gather(1, place // _GROUP) * _GROUP + place % _GROUP


def _weigh(scores: Tensor, columns: Tensor, label_rows: Float[Tensor, "all l"], rule: Rule) -> Float[Tensor, "q l"]:
    values, chosen = _best(scores, rule.top_k)
    if rule.ties == "keep":
        counted = scores.masked_fill(scores < values.amin(-1, keepdim=True), -torch.inf)
        return _softmax(counted, rule.temperature)[:, : len(columns)].to(label_rows.dtype) @ label_rows[columns]
    weights = _softmax(values, rule.temperature).to(label_rows.dtype)
    # a padding column is only chosen for lack of others, and then weighs nothing
    rows = columns[chosen.clamp_(max=len(columns) - 1)]
    return torch.einsum("qk,qkl->ql", weights, label_rows[rows])


def _softmax(scores: Float[Tensor, "q k"], temperature: float) -> Float[Tensor, "q k"]:
    # a row without a reachable key is -inf throughout: 0/0
    return torch.softmax(scores / temperature, -1).nan_to_num_(0.0)


def default_tile_scores(device_type: str) -> int:
    """Return the tile size, in scores, that keeps a device of this type ("cpu", "cuda", ...) busy."""
    return _TILE_SCORES_CPU if device_type == "cpu" else _TILE_SCORES_GPU


def tile_size(grid: tuple[int, int], bound: int, free: int, window: Window | None, tile_scores: int) -> tuple[int, int]:
    """Return (rows, columns) of a tile of queries: nearly square, with up to `tile_scores` scores, at least one query.

    `bound` and `free` are numbers of context frames that are searched within the window, and everywhere.
    """
    (height, width), side = grid, 2
    while side <= max(grid) and side**2 * tile_keys(grid, (side, side), bound, free, window) <= tile_scores:
        side += 1
    side -= 1
    rows, columns = math.ceil(height / side), math.ceil(width / side)
    return math.ceil(height / rows), math.ceil(width / columns)


def tile_keys(grid: tuple[int, int], tile: tuple[int, int], bound: int, free: int, window: Window | None) -> int:
    """Return the largest number of keys that the queries of a tile of (rows, columns) reach; see `tile_size`."""
    reach = window.reach if window is not None else 0
    (height, width), (tall, wide) = grid, tile
    region = min(max(tall + 2 * reach, 0), height) * min(max(wide + 2 * reach, 0), width)
    return bound * region + free * height * width


def _reachable(tile: slice, length: int, reach: int) -> slice:
    start = min(max(tile.start - reach, 0), length)
    return slice(start, max(min(tile.stop + reach, length), start))


@lru_cache(maxsize=64)
def hiding_mask(
    tile: tuple[int, int], region: tuple[int, int], offset: tuple[int, int], window: Window, device: torch.device
) -> Float[Tensor, "q r"]:
    """(queries of the tile, cells of the region): 0 inside the window, -inf outside.

    Tiles in the middle of the grid share one mask. `offset` leads from the tile's first cell to the region's.
    """

    def offsets(axis: int) -> Int[Tensor, "a b"]:
        here = torch.arange(tile[axis], device=device)
        there = torch.arange(region[axis], device=device) + offset[axis]
        return there[None, :] - here[:, None]

    dy, dx = offsets(0), offsets(1)
    inside = window.contains(dy[:, None, :, None], dx[None, :, None, :]).reshape(tile[0] * tile[1], -1)
    return torch.zeros_like(inside, dtype=torch.float32).masked_fill_(~inside, -torch.inf)


def _length(part: slice) -> int:
    return int(part.stop - part.start)
