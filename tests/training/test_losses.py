from __future__ import annotations

import pytest
import torch

from training.losses import label_transfer_loss, matching_loss, scene_losses, velocity_target
from training.scenes import PAIRS


def test_velocity_turns_the_noised_sample_back():
    """x_t = a x + s e and v = a e - s x give x = a x_t - s v (Salimans and Ho 2022)."""
    clean, noise = torch.randn(2, 3, 3, 4, 4)
    kept = torch.tensor([0.9, 0.3, 0.6])
    steps = torch.tensor([0, 1, 2])
    a, s = kept.sqrt().view(3, 1, 1, 1), (1 - kept).sqrt().view(3, 1, 1, 1)
    velocity = velocity_target(clean, noise, steps, kept)
    torch.testing.assert_close(a * (a * clean + s * noise) - s * velocity, clean)


def grid(height: int, width: int, batch: int = 2) -> torch.Tensor:
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([xs.flatten(), ys.flatten()], -1).float().expand(batch, -1, -1)


def test_right_partners_cost_less_than_wrong_ones():
    features = torch.randn(2, 16, 5, 6, generator=torch.Generator().manual_seed(0))
    places, everywhere = grid(5, 6), torch.ones(2, 30, dtype=torch.bool)
    right = matching_loss(features, features, places, everywhere)
    wrong = matching_loss(features, features, places.flip(1), everywhere)
    assert right < 0.1 < 1 < wrong


def test_cells_without_partner_do_not_count():
    features = torch.randn(2, 16, 5, 6, generator=torch.Generator().manual_seed(0))
    places = grid(5, 6).clone()
    has_partner = torch.ones(2, 30, dtype=torch.bool)
    has_partner[:, :10] = False
    before = matching_loss(features, features, places, has_partner)
    places[:, :10] = 4.0
    torch.testing.assert_close(matching_loss(features, features, places, has_partner), before)


def test_neighbours_of_the_true_place_are_not_held_against_it():
    """Cells next to the true one look the same; only within the blind radius does that cost nothing."""
    features = torch.randn(1, 16, 1, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 3)
    places, everywhere = grid(1, 16, batch=1), torch.ones(1, 16, dtype=torch.bool)
    blind = matching_loss(features, features, places, everywhere, blind_radius=1.25)
    strict = matching_loss(features, features, places, everywhere, blind_radius=0.5)
    assert strict - blind > 0.5


def test_gradient_reaches_both_views():
    a, b = (torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(2))
    matching_loss(a, b, grid(3, 3), torch.ones(2, 9, dtype=torch.bool)).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad.abs().sum() > 0
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("others", [0, 1, 3])
def test_fewer_other_pictures_than_asked_for_are_all_there_are(others):
    features = torch.randn(2, 8, 3, 3)
    loss = matching_loss(features, features, grid(3, 3), torch.ones(2, 9, dtype=torch.bool), other_pictures=others)
    assert loss.isfinite()


def test_only_the_chosen_cells_count():
    a, b = torch.randn(2, 2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(2, 12, dtype=torch.bool)
    chosen = torch.tensor([0, 5, 7])
    others = everywhere.clone()
    others[:, chosen] = False
    some = matching_loss(a, b, grid(3, 4), everywhere, chosen=chosen)
    torch.testing.assert_close(some, matching_loss(a, b, grid(3, 4), everywhere & ~others))


def halves(height: int = 4, width: int = 6) -> torch.Tensor:
    """Shares of two layers: left and right half."""
    left = (torch.arange(width) < width / 2).float().expand(1, height, width).reshape(1, -1)
    return torch.stack([left, 1 - left], -1)


def test_features_that_tell_the_layers_carry_them():
    layers = halves()[0].T.reshape(1, 2, 4, 6)
    right = label_transfer_loss(layers, [layers, layers], halves(), [halves(), halves()])
    wrong = label_transfer_loss(layers, [layers.flip(1)], halves(), [halves()])
    assert right < 0.01 < 2 < wrong


def test_ground_without_partner_is_to_resemble_other_ground():
    """A cell that exists in no other view costs little if it looks like its own layer, and much if it does not."""
    keys, query = halves()[0].T.reshape(1, 2, 4, 6), halves()[0].T.reshape(1, 2, 4, 6).clone()
    own = label_transfer_loss(query, [keys], halves(), [halves()])
    query[:, :, 0, 0] = query[:, :, 0, 5]
    assert label_transfer_loss(query, [keys], halves(), [halves()]) - own > 0.2


def test_a_layer_that_no_key_shows_costs_a_finite_price():
    shown = torch.tensor([[[1.0, 0.0]] * 4])
    unseen = torch.tensor([[[0.0, 1.0]] * 4])
    query = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = label_transfer_loss(query, [torch.randn(1, 3, 2, 2)], unseen, [shown])
    loss.backward()
    assert loss.isfinite()
    assert query.grad.isfinite().all()


def test_the_losses_of_scenes_are_means_over_the_pairs_of_views():
    generator = torch.Generator().manual_seed(0)
    views = list(torch.randn(3, 2, 8, 4, 6, generator=generator))
    scenes = {
        "partner_8": 5 * torch.rand(3, 2, 24, 2, generator=generator),
        "visible_8": torch.rand(3, 2, 24, generator=generator) < 0.7,
        "shares": torch.rand(3, 2, 24, 4, generator=generator).softmax(-1),
    }
    chosen = torch.tensor([0, 3, 11, 20])
    found = scene_losses(views, scenes, chosen=chosen)
    match, transfer = 0.0, 0.0
    for pair, ((a, b), third) in enumerate(zip(PAIRS, (2, 0, 1), strict=True)):
        where, seen, shares = scenes["partner_8"][pair], scenes["visible_8"][pair], scenes["shares"]
        match += float(matching_loss(views[a], views[b], where, seen, chosen=chosen)) / 3
        transfer += (
            float(label_transfer_loss(views[a], [views[b], views[third]], shares[a], [shares[b], shares[third]])) / 3
        )
    assert float(found["match"]) == pytest.approx(match, rel=1e-5)
    assert float(found["transfer"]) == pytest.approx(transfer, rel=1e-5)
