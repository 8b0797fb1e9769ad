"""The soft labels of a frame from other, annotated pictures of the same kind of thing. Pure functions on tensors.

The pictures are anchors without a window: where in them an object lies says nothing of where it lies in the frame. So
many rivals let single cells match wrongly. Kept are the matches that are mutual (`references.matching`), and the cells
in between take their labels from those around them in the frame, by the same rule of transfer, within a window.

Chosen on 13 pairs with known masks (objects of `sample_videos/rendered` seen anew, far frames of one DAVIS-2016
sequence, two dogs, two breeds), mean J with the features of `compact`: the plain transfer without a window 0.44, mutual
matches spread over the whole frame 0.43, within a window 0.48; and with the pictures in several sizes
(`propagate.references.crop`) 0.53.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.window import Window
from propagate.references.matching import mutual_neighbors

# from the pictures to the frame: DINO's settings, but for the window
TOP_K, _TEMPERATURE = 5, 0.1
# from mutual cells to those around them: radius 6, 12 and 20 gave 0.48, 0.48 and 0.46, 5 to 20 cells the same
_SPREAD = Window("square", 12)
_SPREAD_TOP_K = 10


@dataclass(frozen=True, eq=False)
class FoundLabels:
    """Labels of a frame, and what they rest on.

    Attributes:
        soft: (L, h, w) float32, each cell sums to 1 as far as the pictures' labels do; a cell that is far from every
            mutual match is background.
        voted: (L, h, w) float32, what the mutual cells were given themselves; the others are 0 in all channels.
        cosine: (h, w) of each cell with its best match.
        mutual: (h, w) the cells whose match is mutual, and positive.
    """

    soft: Float[Tensor, "l h w"]
    voted: Float[Tensor, "l h w"]
    cosine: Float[Tensor, "h w"]
    mutual: Bool[Tensor, "h w"]


@torch.no_grad()
def label_frame(
    query: Float[Tensor, "c h w"],
    keys: Float[Tensor, "n c h w"],
    labels: Float[Tensor, "n l h w"],
    *,
    tile_scores: int | None = None,
) -> FoundLabels:
    """Label a frame from annotated pictures on grids of its size.

    Args:
        query: features of the frame, not necessarily normalized.
        keys: of the pictures.
        labels: of the pictures, channel 0 the background. A cell with no label in any channel is void: it is not
            looked at.
        tile_scores: see `propagate_labels`.
    """
    query, known = normalize(query), labels.sum(1) > 0.5
    keys = normalize(keys) * known[:, None]
    if not known.any():
        nothing = torch.zeros_like(query[0])
        return FoundLabels(_background(labels[0]), torch.zeros_like(labels[0]), nothing, nothing > 0)
    cosine, mutual = mutual_neighbors(query, keys, known)
    mutual = mutual & (cosine > 0)
    voted = propagate_labels(
        query,
        keys,
        labels * known[:, None],
        window=None,
        top_k=TOP_K,
        temperature=_TEMPERATURE,
        tile_scores=tile_scores,
    )
    # the last channel says how much of the weight met a mutual cell
    carried = torch.cat([voted, torch.ones_like(voted[:1])]) * mutual
    spread = propagate_labels(
        query,
        (query * mutual)[None],
        carried[None],
        window=_SPREAD,
        top_k=_SPREAD_TOP_K,
        temperature=_TEMPERATURE,
        tile_scores=tile_scores,
    )
    reached = spread[-1] > 1e-6
    soft = torch.where(reached, spread[:-1] / spread[-1].clamp(min=1e-6), _background(voted))
    return FoundLabels(soft, carried[:-1], cosine, mutual)


def _background(labels: Float[Tensor, "l h w"]) -> Float[Tensor, "l h w"]:
    background = torch.zeros_like(labels)
    background[0] = 1
    return background
