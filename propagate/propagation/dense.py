"""The transfer step as the papers' scripts write it: the yardstick for `propagation.affinity`, not used in a run.

As in DIFT (`eval_davis.py`), after DINO: every query against every key, exp, window mask, all below the k-th set to
zero, divided by the sum, one product with all labels.
"""

from __future__ import annotations

import torch

from propagate.propagation.window import Keys, Labels, Query, Soft, Window, split_frames


@torch.no_grad()
def dense_transfer(
    query: Query, keys: Keys, labels: Labels, *, window: Window | None, top_k: int, temperature: float
) -> Soft:
    """Return the labels of the query frame, computed with N * (h * w)^2 scores.

    Arguments and result as `affinity.propagate_labels` with `ties="keep"`, but NaN for a query that reaches no key.
    Like the scripts it subtracts nothing before exp: float32 overflows at temperatures below 1 / 88.
    """
    frames, _, height, width = keys.shape
    cells = height * width
    weights = torch.einsum("cq,ncp->qnp", query.flatten(1), keys.to(query.dtype).flatten(2))
    weights.div_(temperature).exp_()
    if window is not None:
        ys = torch.arange(cells, device=query.device) // width
        xs = torch.arange(cells, device=query.device) % width
        inside = window.contains(ys - ys[:, None], xs - xs[:, None])
        for frame in split_frames(window, frames)[0]:
            weights[:, frame] *= inside
    weights = weights.flatten(1)
    weights[weights < weights.topk(min(top_k, frames * cells)).values[:, -1:]] = 0
    weights /= weights.sum(1, keepdim=True)
    rows = labels.permute(0, 2, 3, 1).reshape(frames * cells, -1)
    return (weights.to(rows.dtype) @ rows).T.reshape(-1, height, width)
