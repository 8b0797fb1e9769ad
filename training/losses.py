"""The losses of the compact model: denoising, matching, label transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.scenes import PAIRS


def velocity_target(
    clean: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    alphas_cumprod: Float[Tensor, " t"],
) -> Float[Tensor, "b c h w"]:
    """Return the target of a v-prediction network (Salimans and Ho 2022): sqrt(abar) noise - sqrt(1 - abar) clean."""
    kept = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return kept.sqrt() * noise - (1 - kept).sqrt() * clean


def matching_loss(
    features_a: Float[Tensor, "b c h w"],
    features_b: Float[Tensor, "b c h w"],
    partner: Float[Tensor, "b n 2"],
    has_partner: Bool[Tensor, "b n"],
    *,
    chosen: Int[Tensor, " m"] | None = None,
    temperature: float = 0.07,
    blind_radius: float = 1.25,
    other_pictures: int = 3,
) -> Float[Tensor, ""]:
    """Return the InfoNCE loss between the cells of two views.

    The positive of a cell of A is the feature of B at its partner. The negatives are all cells of B farther than
    `blind_radius` from that place, and all cells of other pictures of the batch.

    Args:
        features_a: features of the first view.
        features_b: features of the second view.
        partner: (x, y) in cells of B for each cell of A; B is sampled there bilinearly.
        has_partner: which cells of A have a partner. The loss is the mean over these.
        chosen: flat indices of the cells of A to use; None: all.
        temperature: softmax temperature.
        blind_radius: in cells; nearer cells of B are neither positives nor negatives.
        other_pictures: number of other pictures that negatives are taken from.
    """
    batch, _, height, width = features_b.shape
    query = F.normalize(features_a.flatten(2).transpose(1, 2), dim=-1)
    if chosen is not None:
        query, partner, has_partner = query[:, chosen], partner[:, chosen], has_partner[:, chosen]
    span = features_b.new_tensor([width, height])
    places = ((partner + 0.5) / span * 2 - 1).unsqueeze(2)
    positive = F.grid_sample(features_b, places, align_corners=False, padding_mode="border")[..., 0].transpose(1, 2)
    positive_score = (query * F.normalize(positive, dim=-1)).sum(-1, keepdim=True)

    keys = F.normalize(features_b.flatten(2), dim=1)
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([xs.flatten(), ys.flatten()], -1).to(partner)
    near = torch.cdist(partner, cells.expand(batch, -1, -1)) <= blind_radius
    scores = [positive_score, (query @ keys).masked_fill(near, -torch.inf)]
    scores += [query @ keys.roll(shift, 0) for shift in range(1, min(other_pictures, batch - 1) + 1)]
    logits = torch.cat(scores, -1)[has_partner] / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def label_transfer_loss(
    query: Float[Tensor, "b c h w"],
    keys: list[Float[Tensor, "b c h w"]],
    query_shares: Float[Tensor, "b n l"],
    key_shares: list[Float[Tensor, "b n l"]],
    *,
    temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """Return the cross-entropy between the layers of a view and the layers carried to it from other views.

    A softmax over all cells of the `keys` views carries their layer shares to the `query` view, like labels in the
    transfer step. Unlike the matching loss, this loss also trains cells without a partner: background that was just
    uncovered must resemble other background more than the object that covered it.

    Args:
        query: features of the view that receives labels.
        keys: features of the other views.
        query_shares: share of each layer per cell of the query view.
        key_shares: share of each layer per cell, one tensor per key view.
        temperature: softmax temperature.
    """
    cells = F.normalize(query.flatten(2).transpose(1, 2), dim=-1)
    bank = torch.cat([F.normalize(view.flatten(2), dim=1) for view in keys], -1)
    carried = (cells @ bank / temperature).softmax(-1) @ torch.cat(key_shares, 1)
    return -(query_shares * (carried + 1e-4).log()).sum(-1).mean()


def scene_losses(
    views: Sequence[Float[Tensor, "b c h w"]], scenes: Mapping[str, Tensor], *, chosen: Int[Tensor, " m"]
) -> dict[str, Float[Tensor, ""]]:
    """Return both losses of a batch of scenes on the grid of stride 8, each the mean over `PAIRS`.

    Args:
        views: features of the first, second and third views.
        scenes: a batch of `training.scenes.SceneBatches`.
        chosen: cells to match, see `matching_loss`. Labels are carried to all cells.

    Returns:
        The losses "match" and "transfer".
    """
    match, transfer = [], []
    for pair, (a, b) in enumerate(PAIRS):
        places, visible = scenes["partner_8"][pair], scenes["visible_8"][pair]
        match.append(matching_loss(views[a], views[b], places, visible, chosen=chosen))
        others = [view for view in range(len(views)) if view != a]
        keys, shown = [views[view] for view in others], [scenes["shares"][view] for view in others]
        transfer.append(label_transfer_loss(views[a], keys, scenes["shares"][a], shown))
    return {"match": torch.stack(match).mean(), "transfer": torch.stack(transfer).mean()}
