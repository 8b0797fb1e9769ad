"""The fine half of a transfer from coarse to fine: labels on a grid of smaller cells. Pure functions on tensors.

The search (`torch.transfer.best_keys`) finds the best keys of each query cell on the coarse grid. A coarse cell has
f x f finer ones, its children. The query's children are compared by finer features with the children of those keys
alone, and the transfer rule is applied to these. A search on the finer grid would make f^4 times as many comparisons as
one on the coarse grid; this makes f^4 per key found. Maps of the finer grid are stored by coarse cell (`by_cell`), so
that a gather of a cell reads one piece of memory.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from propagate.propagation.torch.transfer import default_tile_scores
from propagate.propagation.window import Ties, are_plain, load_kernels
from propagate.threads import in_threads, usual_threads

_BAND = 256  # cells that a thread refines at a time
_MOST_TOP_K = 128  # the best are kept in a sorted list, whose cost grows with its length


def finer_factor(coarse: tuple[int, int], finer: tuple[int, int]) -> int:
    """Return the number of finer cells along a side of a coarse one, or raise ValueError if it is no whole number."""
    factor = finer[0] // coarse[0]
    if factor < 1 or finer != (coarse[0] * factor, coarse[1] * factor):
        raise ValueError(f"a grid of {finer[0]}x{finer[1]} does not divide the cells of one of {coarse[0]}x{coarse[1]}")
    return factor


def by_cell(finer: Float[Tensor, "*n c y x"], factor: int) -> Float[Tensor, "*n d h w"]:
    """Return a map of the finer grid by coarse cell: d = factor^2 * c, all channels of one child after the other's."""
    *several, channels, rows, columns = finer.shape
    height, width = rows // factor, columns // factor
    parted = finer.reshape(*several, channels, height, factor, width, factor)
    return parted.movedim((-3, -1), (-5, -4)).reshape(*several, factor**2 * channels, height, width)


def from_cells(cells: Float[Tensor, "*n d h w"], factor: int) -> Float[Tensor, "*n c y x"]:
    """Invert `by_cell`."""
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
    """Return labels for every child of the query's cells, from the children of the keys found for the cell.

    Args:
        query: features of the finer grid by cell (`by_cell`), of unit length per child.
        keys, labels: the same of the N context frames, maybe of lower precision, fastest in `torch.channels_last`; and
            their labels by cell.
        found: keys for each cell, frame * h * w + row * w + column; -1: none. See `torch.transfer.best_keys`.
        factor: children along a side of a cell.
        top_k, temperature, ties: as in `propagate.propagation.affinity.propagate_labels`, for children.
        tile_scores: values of keys gathered at a time, which do not affect the labels; None: `default_tile_scores`.

    Returns:
        Labels by cell, in the labels' dtype; 0 where no key was found.
    """
    children, (height, width, most) = factor**2, found.shape
    loops = _kernels() if _can_compile(query, keys, labels, top_k) else None
    if loops is not None:
        rows = _refine_compiled(loops, (query, keys, labels), found, children, top_k, temperature, ties == "keep")
        return rows.view(height, width, -1).permute(2, 0, 1)
    key_rows = keys.permute(0, 2, 3, 1).flatten(0, 2)
    label_rows = labels.permute(0, 2, 3, 1).flatten(0, 2)
    queries = query.permute(1, 2, 0).reshape(height * width, children, -1)
    chosen = found.reshape(height * width, most)
    result = label_rows.new_empty(height * width, label_rows.shape[1])
    step = max(1, (tile_scores or default_tile_scores(keys.device.type)) // (most * len(query)))
    for start in range(0, height * width, step):
        tile = slice(start, start + step)
        rows = chosen[tile].clamp(min=0)
        near = key_rows[rows].to(queries.dtype).view(len(rows), most * children, -1)
        scores = torch.bmm(queries[tile], near.transpose(1, 2))
        scores.masked_fill_((chosen[tile] < 0).repeat_interleave(children, 1).unsqueeze(1), -torch.inf)
        weights = _weights(scores, min(top_k, most * children), temperature, ties).to(label_rows.dtype)
        near_labels = label_rows[rows].view(len(rows), most * children, -1)
        result[tile] = torch.bmm(weights, near_labels).flatten(1)
    return result.view(height, width, -1).permute(2, 0, 1)


def _can_compile(query: Tensor, keys: Tensor, labels: Tensor, top_k: int) -> bool:
    all_float = query.dtype == keys.dtype == labels.dtype == torch.float32
    return all_float and are_plain("cpu", query, keys, labels) and top_k <= _MOST_TOP_K


@cache
def _kernels() -> ModuleType | None:
    return load_kernels("propagate.propagation.cpu.finer_kernels")


def _refine_compiled(
    loops: ModuleType, maps: tuple[Tensor, ...], found: Tensor, children: int, k: int, temperature: float, keep: bool
) -> Tensor:
    query_rows, key_rows, label_rows = (
        part.detach().movedim(-3, -1).contiguous().view(-1, children, part.shape[-3] // children).numpy()
        for part in maps
    )
    chosen = found.flatten(0, 1).numpy()
    result = torch.empty(len(chosen), children, label_rows.shape[-1])

    def refine_band(first: int) -> None:
        part = result[first : first + _BAND].numpy()
        loops.refine(query_rows, key_rows, label_rows, chosen, first, k, temperature, keep, part)

    in_threads(usual_threads())(refine_band, list(range(0, len(chosen), _BAND)))
    return result


def _weights(scores: Float[Tensor, "q f m"], top_k: int, temperature: float, ties: Ties) -> Float[Tensor, "q f m"]:
    """Softmax over the k best of every row, 0 for the others; a row without any key is 0 throughout."""
    best = scores.topk(top_k, dim=-1)
    if ties == "keep":
        counted = scores.masked_fill(scores < best.values[..., -1:], -torch.inf)
        return torch.softmax(counted / temperature, -1).nan_to_num_(0.0)
    shares = torch.softmax(best.values / temperature, -1).nan_to_num_(0.0)
    return torch.zeros_like(scores).scatter_(-1, best.indices, shares)
