"""The transfer step: exact windowed top-k cosine affinity. Defines it and dispatches to a backend.

For every query cell: the cosines with all reachable cells of all context frames, the k best of their union, a softmax
over these at a temperature, and the weighted mean of the context's labels. This is the propagation rule of DIFT
(Tsingularity/dift, `eval_davis.py`), DINO (`eval_video_segmentation.py`) and CRW (ajabri/videowalk, `test.py`), which
differ only in the window and in how ties are broken.

Backends: `cuda` (a Triton kernel), `cpu` (compiled loops with int8 scores and a proven bound), `torch` (any device).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.propagation.cpu import transfer as cpu_backend
from propagate.propagation.cpu.keys import RoundedKeys
from propagate.propagation.cuda import transfer as cuda_backend
from propagate.propagation.torch import transfer as torch_backend
from propagate.propagation.window import Keys, Labels, Query, Rule, Soft, Ties, Window


def normalize(features: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """Scale features to unit length per cell (floor 1e-12: a zero feature stays zero and has cosine 0 with all)."""
    # sums round by their order in memory, which differs between a batch, a single frame and a cache: fix the order
    return F.normalize(features.movedim(-3, -1).contiguous(), dim=-1).movedim(-1, -3)


@torch.no_grad()
def propagate_labels(
    query: Query,
    keys: Keys,
    labels: Labels,
    *,
    window: Window | None,
    top_k: int,
    temperature: float,
    ties: Ties = "cut",
    tile_scores: int | None = None,
    rounded: RoundedKeys | None = None,
    stamps: tuple[int, ...] | None = None,
) -> Soft:
    """Return the labels of the query frame, carried from its context.

    Args:
        query: (C, h, w) features of the frame to label, of unit length per cell.
        keys: (N, C, h, w) features of the N context frames, of unit length per cell; fastest in `torch.channels_last`,
            the memory bank's layout. May be of lower precision than the query.
        labels: (N, L, h, w) labels of the context frames, not necessarily summing to 1.
        window: which keys a query can reach; None: all.
        top_k: number of keys that count, or fewer where fewer can be reached.
        temperature: softmax temperature, above 0. The maximum is subtracted, so small values are safe.
        ties: "cut" takes exactly k keys, "keep" also every key that equals the k-th (DIFT).
        tile_scores: scores held at a time, which do not affect the labels; None: `default_tile_scores`.
        rounded, stamps: a cache of the CPU backend, for steps with one memory, and the version of each context frame's
            keys, which changes with them. They change no bit.

    Returns:
        (L, h, w) in the labels' dtype. A query that reaches no key (a circle of radius 0 without exempt frames) has
        label 0 everywhere. A zero query feature weighs all its keys alike: `ties` decides which.

    Raises:
        ValueError: top_k is below 1, or the temperature is not above 0.
    """
    rule = Rule(window, top_k, temperature, ties)
    if cuda_backend.can_transfer(query, keys, labels, rule):
        return cuda_backend.transfer(query, keys, labels, rule)
    if cpu_backend.can_transfer(query, keys, labels, top_k):
        return cpu_backend.transfer(query, keys, labels, rule, tile_scores=tile_scores, rounded=rounded, stamps=stamps)
    return torch_backend.transfer(query, keys, labels, rule, tile_scores)
