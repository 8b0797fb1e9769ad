"""The transfer step in torch operations: any device, any precision.

Queries are processed in tiles. A tile gathers only the keys that its queries can reach, so the working memory is one
tile's scores and the full affinity is never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from propagate.propagation.window import Rule, Window, grid_of, split_frames

# On a CPU a tile's scores should stay in the cache between the passes over them; a GPU needs large tiles to be busy.
_TILE_SCORES_CPU, _TILE_SCORES_GPU = 2**20, 2**26
_GROUP = 16


def transfer(
    query: Float[Tensor, "c h w"],
    keys: Float[Tensor, "n c h w"],
    labels: Float[Tensor, "n l h w"],
    rule: Rule,
    tile_scores: int | None = None,
) -> Float[Tensor, "l h w"]:
    """See `propagate.propagation.affinity.propagate_labels`; for any device and precision."""
    frames, _, height, width = keys.shape
    label_rows = labels.permute(0, 2, 3, 1).reshape(frames * height * width, -1)
    result = torch.empty(height, width, label_rows.shape[1], dtype=labels.dtype, device=labels.device)
    for ys, xs, scores, columns in _scored_tiles(query, keys, rule.window, tile_scores):
        if not len(columns):
            result[ys, xs] = 0
            continue
        if rule.ties == "keep":
            soft = _weigh_all(scores, label_rows[columns], rule.top_k, rule.temperature)
        else:
            soft = _weigh_best(scores, label_rows, columns, rule.top_k, rule.temperature)
        result[ys, xs] = soft.view(_length(ys), _length(xs), -1)
    return result.permute(2, 0, 1)


@torch.no_grad()
def best_keys(
    query: Float[Tensor, "c h w"],
    keys: Float[Tensor, "n c h w"],
    *,
    window: Window | None,
    top_k: int,
    tile_scores: int | None = None,
) -> Int[Tensor, "h w k"]:
    """Return the keys that `propagate_labels` with `ties="cut"` would weigh, for every query cell, in no order.

    Returns:
        (h, w, top_k) int64: frame * h * w + row * w + column of each key; -1 where no more keys can be reached.
    """
    result = torch.full((*grid_of(query), top_k), -1, device=keys.device)
    for ys, xs, scores, columns in _scored_tiles(query, keys, window, tile_scores):
        values, chosen = _best(scores, top_k)
        found = columns[chosen.clamp_(max=len(columns) - 1)].masked_fill_(values == -torch.inf, -1)
        result[ys, xs, : found.shape[1]] = found.view(_length(ys), _length(xs), -1)
    return result


def _scored_tiles(
    query: Float[Tensor, "c h w"], keys: Float[Tensor, "n c h w"], window: Window | None, tile_scores: int | None
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
    for ys, xs in _tiles(height, width, tall, wide):
        tile = query_rows[ys, xs].reshape(-1, channels)
        found, columns = everywhere
        hiding = None
        if bound and window is not None:
            near_y, near_x = _reachable(ys, height, window.reach), _reachable(xs, width, window.reach)
            near = bound_rows[:, near_y, near_x].reshape(-1, channels)
            found = torch.cat([near, found]) if free else near
            columns = torch.cat([bound_index[:, near_y, near_x].flatten(), columns])
            hiding = _hiding(
                (_length(ys), _length(xs)),
                (_length(near_y), _length(near_x)),
                (near_y.start - ys.start, near_x.start - xs.start),
                replace(window, exempt=()),
                keys.device,
            )
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
    """The k largest scores of every row and their columns.

    The k largest lie in the k groups of columns with the largest maxima. Taking the maxima is one fast pass; sorting,
    which is slow, then only sees the maxima and k groups. Equal to a plain top-k except for the choice among ties.
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


def _weigh_best(
    scores: Float[Tensor, "q p"],
    label_rows: Float[Tensor, "all l"],
    columns: Int[Tensor, " m"],
    top_k: int,
    temperature: float,
) -> Float[Tensor, "q l"]:
    values, chosen = _best(scores, top_k)
    weights = _softmax(values, temperature)
    # a padding column is only ever chosen for lack of others and then weighs nothing
    rows = columns[chosen.clamp_(max=len(columns) - 1)]
    return torch.einsum("qk,qkl->ql", weights.to(label_rows.dtype), label_rows[rows])


def _weigh_all(
    scores: Float[Tensor, "q p"], label_rows: Float[Tensor, "m l"], top_k: int, temperature: float
) -> Float[Tensor, "q l"]:
    values, _ = _best(scores, top_k)
    threshold = values.amin(-1, keepdim=True)
    weights = _softmax(scores.masked_fill(scores < threshold, -torch.inf), temperature)
    return weights[:, : len(label_rows)].to(label_rows.dtype) @ label_rows


def _softmax(scores: Float[Tensor, "q k"], temperature: float) -> Float[Tensor, "q k"]:
    # rows without any reachable key are -inf throughout: 0/0
    return torch.softmax(scores / temperature, -1).nan_to_num_(0.0)


def default_tile_scores(device_type: str) -> int:
    """Return the tile size, in scores, that keeps a device of this type ("cpu", "cuda", ...) busy."""
    return _TILE_SCORES_CPU if device_type == "cpu" else _TILE_SCORES_GPU


def tile_size(grid: tuple[int, int], bound: int, free: int, window: Window | None, tile_scores: int) -> tuple[int, int]:
    """Return (rows, columns) of a tile of queries: nearly square, as large as the scores allow, at least one query.

    Args:
        grid: (rows, columns) of all cells.
        bound, free: numbers of context frames that are searched within the window, and everywhere.
        window: None: all frames are free.
        tile_scores: limit on the scores of a tile with its keys.
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


def _tiles(height: int, width: int, tall: int, wide: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            yield slice(top, min(top + tall, height)), slice(left, min(left + wide, width))


def _reachable(tile: slice, length: int, reach: int) -> slice:
    start = min(max(tile.start - reach, 0), length)
    return slice(start, max(min(tile.stop + reach, length), start))


@lru_cache(maxsize=64)
def _hiding(
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
