"""The fine half of a transfer from coarse to fine: labels on a grid of smaller cells. Pure functions on tensors.

The search (`affinity.best_keys`) finds, on the coarse grid, the keys that are most like each query cell. A
coarse cell has f x f finer ones, its children. Here every child of the query is compared with the children of those
keys alone, by features of its own, and the rule of the transfer is applied to these: the k best, a softmax over them,
the so weighted mean of their labels. A plain search on the finer grid makes f^4 times as many comparisons as one on the
coarse grid; this makes f^4 for each key that was found, which are few.

Maps of the finer grid are held by coarse cell (`by_cell`): the vectors of a cell's children lie side by side, so that a
cell that was found is one piece of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from propagate.propagation.torch.transfer import default_tile_scores
from propagate.propagation.window import Ties
from propagate.threads import in_threads, usual_threads

_BAND = 256  # cells that a thread refines at a time
_MOST_TOP_K = 128  # the best are kept in a sorted list, whose cost grows with its length


def finer_factor(coarse: tuple[int, int], finer: tuple[int, int]) -> int:
    """How many cells of the finer grid lie along a side of a coarse one.

    Args:
        coarse, finer: (rows, columns).

    Raises:
        ValueError: the finer grid does not divide each coarse cell into f x f.
    """
    factor = finer[0] // coarse[0]
    if factor < 1 or finer != (coarse[0] * factor, coarse[1] * factor):
        raise ValueError(f"a grid of {finer[0]}x{finer[1]} does not divide the cells of one of {coarse[0]}x{coarse[1]}")
    return factor


def by_cell(finer: Float[Tensor, "*n c y x"], factor: int) -> Float[Tensor, "*n d h w"]:
    """A map of the finer grid by coarse cell: d = factor^2 * c, all channels of the first child, then the next's."""
    *several, channels, rows, columns = finer.shape
    height, width = rows // factor, columns // factor
    parted = finer.reshape(*several, channels, height, factor, width, factor)
    return parted.movedim((-3, -1), (-5, -4)).reshape(*several, factor**2 * channels, height, width)


def from_cells(cells: Float[Tensor, "*n d h w"], factor: int) -> Float[Tensor, "*n c y x"]:
    """The map of the finer grid again: what `by_cell` was given."""
    *several, values, height, width = cells.shape
    parted = cells.reshape(*several, factor, factor, values // factor**2, height, width)
    return parted.movedim((-5, -4), (-3, -1)).reshape(*several, -1, height * factor, width * factor)


@torch.no_grad()
def refine_labels(
    query: Float[Tensor, "d h w"],
    keys: Float[Tensor, "n d h w"],
    labels: Float[Tensor, "n e h w"],
    found: Int[Tensor, "h w m"],
    *,
    factor: int,
    top_k: int,
    temperature: float,
    ties: Ties = "cut",
    tile_scores: int | None = None,
) -> Float[Tensor, "e h w"]:
    """Labels of every child of the query's cells from the children of the keys that were found for the cell.

    Args:
        query: features of the finer grid by cell (`by_cell`), of unit length per child.
        keys: the same of the N context frames; fastest in `torch.channels_last`. May be of lower precision.
        labels: of the context frames on the finer grid, by cell.
        found: keys for each cell, frame * h * w + row * w + column; -1: none. See `affinity.best_keys`.
        factor: children along a side of a cell.
        top_k: children that count; where there are fewer, all of these do.
        temperature, ties: see `propagate.propagation.affinity.propagate_labels`.
        tile_scores: values of keys that are gathered at a time; None: `default_tile_scores`. The labels do not depend
            on it.

    Returns:
        Labels by cell, in the labels' dtype; 0 where no key was found.
    """
    loops = _kernels() if _in_reach(query, keys, labels, top_k) else None
    if loops is not None:
        return _refine_compiled(loops, query, keys, labels, found, factor, top_k, temperature, ties)
    children, (height, width, most) = factor**2, found.shape
    key_rows = keys.permute(0, 2, 3, 1).flatten(0, 2)
    label_rows = labels.permute(0, 2, 3, 1).flatten(0, 2)
    asked = query.permute(1, 2, 0).reshape(height * width, children, -1)
    chosen = found.reshape(height * width, most)
    result = label_rows.new_empty(height * width, label_rows.shape[1])
    for tile in _tiles(height * width, most * len(query), tile_scores or default_tile_scores(keys.device.type)):
        none = chosen[tile] < 0
        rows = chosen[tile].clamp(min=0)
        near = key_rows[rows].to(asked.dtype).view(len(rows), most * children, -1)
        scores = torch.bmm(asked[tile], near.transpose(1, 2))
        scores.masked_fill_(none.repeat_interleave(children, 1).unsqueeze(1), -torch.inf)
        weights = _weights(scores, min(top_k, most * children), temperature, ties).to(label_rows.dtype)
        near_labels = label_rows[rows].view(len(rows), most * children, -1)
        result[tile] = torch.bmm(weights, near_labels).flatten(1)
    return result.view(height, width, -1).permute(2, 0, 1)


def _in_reach(query: Tensor, keys: Tensor, labels: Tensor, top_k: int) -> bool:
    """Whether the compiled loop knows these tensors and is the faster way."""
    return (
        type(query) is type(keys) is type(labels) is Tensor  # others may have no memory that numpy could read
        and query.device.type == keys.device.type == labels.device.type == "cpu"
        and query.dtype == keys.dtype == labels.dtype == torch.float32
        and top_k <= _MOST_TOP_K
    )


@cache
def _kernels() -> ModuleType | None:
    """The compiled inner loop, or None where numba is not to be had."""
    try:
        from propagate.propagation.cpu import finer_kernels as refinement_kernels
    except (ImportError, OSError):
        return None
    return refinement_kernels


def _refine_compiled(
    loops: ModuleType,
    query: Tensor,
    keys: Tensor,
    labels: Tensor,
    found: Tensor,
    factor: int,
    top_k: int,
    temperature: float,
    ties: Ties,
) -> Tensor:
    height, width, most = found.shape
    query_rows, key_rows, label_rows = (
        part.detach().movedim(-3, -1).contiguous().view(-1, factor**2, part.shape[-3] // factor**2).numpy()
        for part in (query, keys, labels)
    )
    chosen = found.reshape(-1, most).numpy()
    result = torch.empty(height * width, factor**2, label_rows.shape[-1])

    def one_band(first: int) -> None:
        part = result[first : first + _BAND].numpy()
        loops.refine(query_rows, key_rows, label_rows, chosen, first, top_k, temperature, ties == "keep", part)

    in_threads(usual_threads())(one_band, list(range(0, height * width, _BAND)))
    return result.view(height, width, -1).permute(2, 0, 1)


def _weights(scores: Float[Tensor, "q f m"], top_k: int, temperature: float, ties: Ties) -> Float[Tensor, "q f m"]:
    """Softmax over the k best of every row, 0 for the others; a row without any key is 0 throughout."""
    best = scores.topk(top_k, dim=-1)
    if ties == "keep":
        counted = scores.masked_fill(scores < best.values[..., -1:], -torch.inf)
        return torch.softmax(counted / temperature, -1).nan_to_num_(0.0)
    shares = torch.softmax(best.values / temperature, -1).nan_to_num_(0.0)
    return torch.zeros_like(scores).scatter_(-1, best.indices, shares)


def _tiles(queries: int, values: int, at_once: int) -> Iterator[slice]:
    """Queries whose keys have no more than `at_once` values together, at least one query."""
    step = max(1, at_once // values)
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))
