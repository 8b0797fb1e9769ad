"""Soft labels of a frame from other annotated pictures of the same kind of object. Pure functions on tensors.

The pictures are anchors without a window, so single cells match wrongly. Only mutual matches (`references.matching`)
count, and the cells in between take their labels from matched cells around them in the frame, within a window.

Chosen on 13 pairs with known masks (objects of `sample_videos/rendered` seen anew, far frames of one DAVIS-2016
sequence, two dogs, two breeds), mean J with the features of `compact`: the plain transfer without a window 0.44, mutual
matches spread over the whole frame 0.43, within a window 0.48, with crops of several sizes (`references.crop`) 0.53.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.window import Keys, Labels, Query, Soft, Window
from propagate.references.matching import mutual_neighbors

TOP_K, _TEMPERATURE = 5, 0.1  # from the pictures to the frame: DINO's settings without the window
# from mutual cells to those around them: radius 6, 12 and 20 gave 0.48, 0.48 and 0.46, 5 to 20 cells the same
_SPREAD = Window("square", 12)
_SPREAD_TOP_K = 10


@dataclass(frozen=True, eq=False)
class FoundLabels:
    """Labels of a frame, and their evidence."""

    soft: Soft  # a cell sums to 1 if the pictures' labels do; background far from mutual matches
    voted: Soft  # the labels transferred to mutual cells; 0 in the others
    cosine: Float[Tensor, "h w"]  # of each cell with its best match
    mutual: Bool[Tensor, "h w"]  # cells with a mutual match of positive cosine


@torch.no_grad()
def label_frame(query: Query, keys: Keys, labels: Labels, *, tile_scores: int | None = None) -> FoundLabels:
    """Label a frame from annotated pictures on grids of its size; features need not be normalized.

    Channel 0 of the labels is the background. A cell without a label in any channel is void and ignored.
    """
    query, known = normalize(query), labels.sum(1) > 0.5
    keys = normalize(keys) * known[:, None]
    if not known.any():
        nothing = torch.zeros_like(query[0])
        return FoundLabels(_background(labels[0]), torch.zeros_like(labels[0]), nothing, nothing > 0)
    cosine, mutual = mutual_neighbors(query, keys, known)
    mutual = mutual & (cosine > 0)
    transfer = partial(propagate_labels, query, temperature=_TEMPERATURE, tile_scores=tile_scores)
    voted = transfer(keys, labels * known[:, None], window=None, top_k=TOP_K)
    # the last channel is the share of the weight on mutual cells
    carried = torch.cat([voted, torch.ones_like(voted[:1])]) * mutual
    spread = transfer((query * mutual)[None], carried[None], window=_SPREAD, top_k=_SPREAD_TOP_K)
    reached = spread[-1] > 1e-6
    soft = torch.where(reached, spread[:-1] / spread[-1].clamp(min=1e-6), _background(voted))
    return FoundLabels(soft, carried[:-1], cosine, mutual)


def _background(labels: Soft) -> Soft:
    background = torch.zeros_like(labels)
    background[0] = 1
    return background
