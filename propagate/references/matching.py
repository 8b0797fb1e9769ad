"""Match the cells of one picture in another: nearest neighbors over the whole grid. Pure functions on tensors.

A match is *mutual* if matching the best cell back ends within `TOLERANCE` cells of the start. Cosines compare only
within one extractor; mutuality compares between extractors, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from propagate.propagation.affinity import normalize
from propagate.propagation.window import grid_of

TOLERANCE = 2  # cells along either axis by which the match back may miss; 1 to 3 gave the same masks within 1 % of J
# the soft-argmax covers the cells around the best one, and is sharp: only cells of nearly its cosine move it; with
# 5 x 5 cells and 0.02 the edge of a plain area pulled matches inwards by most of a cell
_REACH, _TEMPERATURE = 1, 0.01
_SCORES = 2**22  # held at a time
_Features = Float[Tensor, "c h w"]
_OtherFeatures = Float[Tensor, "c y x"]
_Rows = Float[Tensor, "n c"]
_Points = Float[Tensor, "n 2"]


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches in picture B of n features of picture A."""

    positions: Float[Tensor, "n 2"]  # (x, y) in cells of B, with sub-cell precision
    best: Int[Tensor, " n"]  # the best cell of B, numbered row by row
    cosine: Float[Tensor, " n"]  # with that cell
    mutual: Bool[Tensor, " n"]


def match_cells(a: Float[Tensor, "c h w"], b: Float[Tensor, "c y x"]) -> Matches:
    """Match every cell of A, row by row. Features need not be normalized."""
    height, width = grid_of(a)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows], -1).view(-1, 2).to(a.device, torch.float32)
    unit = normalize(a)
    return _match(_rows(unit), places, unit, normalize(b))


def match_points(a: _Features, points: _Points, b: _OtherFeatures) -> Matches:
    """Match points of A, (n, 2) float32 (x, y) in cells with fractions. Features need not be normalized."""
    unit = normalize(a)
    return _match(at_points(unit, points), points.float(), unit, normalize(b))


def similarity_maps(a: _Features, points: _Points, b: _OtherFeatures) -> Float[Tensor, "n y x"]:
    """Return the cosine of points (x, y), in cells of A, with every cell of B: (n, y, x) in [-1, 1]."""
    return torch.einsum("nc,cyx->nyx", at_points(normalize(a), points), normalize(b))


def at_points(features: Float[Tensor, "c h w"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """Sample features of unit length at points (x, y) in cells, bilinear; points beyond the border are clamped."""
    height, width = grid_of(features)
    scale = torch.tensor([width, height], device=features.device)
    where = (points.to(features) + 0.5) * 2 / scale - 1
    sampled = F.grid_sample(features[None], where[None, None], align_corners=False, padding_mode="border")
    return F.normalize(sampled[0, :, 0].T, dim=1)


def mutual_neighbors(
    query: _Features, keys: Float[Tensor, "n c h w"], known: Bool[Tensor, "n h w"]
) -> tuple[Float[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Match each cell of a frame among the `known` cells (at least one) of several pictures.

    Features are of unit length. Return the cosine with the best of them, and whether the match is mutual.
    """
    height, width = grid_of(query)
    cells, found = _rows(query), keys.permute(0, 2, 3, 1)[known]
    best, cosine = _nearest(cells, found)
    back, _ = _nearest(found[best], cells)
    here = torch.arange(height * width, device=query.device)
    dy, dx = (here // width - back // width).abs(), (here % width - back % width).abs()
    mutual = torch.maximum(dy, dx) <= TOLERANCE
    return cosine.view(height, width), mutual.view(height, width)


def _match(features: _Rows, places: _Points, a: _Features, b: _OtherFeatures) -> Matches:
    width = a.shape[2]
    cells = _rows(b)
    best, cosine = _nearest(features, cells)
    back, _ = _nearest(cells[best], _rows(a))
    returned = torch.stack([back % width, back // width], -1)
    mutual = (returned - places.to(features.device)).abs().amax(1) <= TOLERANCE + 0.5
    return Matches(_refined(features, b, best), best, cosine, mutual)


def _nearest(queries: _Rows, keys: Float[Tensor, "m c"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The best key of each query and their cosine."""
    parts = [(part @ keys.T).max(1) for part in torch.split(queries, max(1, _SCORES // len(keys)))]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def _refined(features: _Rows, b: _OtherFeatures, best: Int[Tensor, " n"]) -> _Points:
    """(x, y) of the soft-argmax around the best cells, without cells beyond the border."""
    height, width = grid_of(b)
    offsets = torch.arange(-_REACH, _REACH + 1, device=b.device)
    dy, dx = (part.flatten() for part in torch.meshgrid(offsets, offsets, indexing="ij"))
    rows, columns = (best // width)[:, None] + dy, (best % width)[:, None] + dx
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    cells, scores = _rows(b), torch.empty(flat.shape, device=b.device)
    for place in range(flat.shape[1]):  # 9 gathers of n x C, not one of 9 n x C
        scores[:, place] = (features * cells[flat[:, place]]).sum(1)
    weights = torch.softmax(scores.masked_fill(~inside, -torch.inf) / _TEMPERATURE, 1)
    return torch.stack([(weights * columns).sum(1), (weights * rows).sum(1)], 1)


def _rows(features: Float[Tensor, "c h w"]) -> Float[Tensor, "m c"]:
    return features.flatten(1).T.contiguous()
