from __future__ import annotations

import pytest
import torch

from propagate.errors import UsageError
from propagate.features.learned_prompts.learning import View, attention_loss, is_flat, learn_embedding, random_views
from propagate.features.learned_prompts.targets import PointTarget, whole
from tests.features.learned_prompts.tiny_attention import SIZE, picture, tiny_attention

TARGET = PointTarget((31.5, 31.5), 10.0)


@pytest.fixture(scope="module")
def network():
    return tiny_attention().network


def start(network, seed: int = 0) -> torch.Tensor:
    return torch.randn((1, 77, network.width), generator=torch.Generator().manual_seed(seed))


def views(steps: int, seed: int = 0) -> list[View]:
    generator = torch.Generator().manual_seed(seed)
    return list(random_views(SIZE, (4, 8, 12), TARGET, portion=0.9, steps=steps, generator=generator))


def learn(network, steps: int, **options):
    given = {"timestep": 140, "learning_rate": 0.1, **options}
    return learn_embedding(network, picture()[None], TARGET, start(network), views(steps), **given)


def test_the_loss_falls_and_the_start_stays_as_it_was(network):
    before, seen = start(network), []
    found = learn(network, 20, on_step=seen.append)
    assert found.losses == tuple(seen)
    assert sum(found.losses[-5:]) < 0.8 * sum(found.losses[:5])
    assert found.embedding.shape == before.shape
    assert not found.embedding.requires_grad
    assert torch.equal(before, start(network))


def test_the_same_views_give_the_same_embedding(network):
    assert torch.equal(learn(network, 3).embedding, learn(network, 3).embedding)


def test_views_are_uniform_noise_and_crops_from_the_seed():
    first, second, other = views(3), views(3), views(3, seed=1)
    for a, b in zip(first, second, strict=True):
        assert a.crop == b.crop
        assert torch.equal(a.noise, b.noise)
        assert 0 <= a.noise.min() < 0.1 < 0.9 < a.noise.max() < 1
    assert not torch.equal(first[0].noise, other[0].noise)
    assert not torch.equal(first[0].noise, first[1].noise)


def test_weights_get_no_gradient(network):
    embedding = start(network).requires_grad_()
    attention_loss(network, picture()[None], TARGET, embedding, View(whole(SIZE), views(1)[0].noise), 140).backward()
    assert embedding.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.model.unet.parameters())


def test_it_stops_where_the_loss_is_flat(network):
    found = learn(network, 40, learning_rate=1e-12, patience=3)
    assert 6 <= len(found.losses) < 40


def test_without_patience_every_view_is_used(network):
    assert len(learn(network, 8, learning_rate=1e-12).losses) == 8


@pytest.mark.parametrize(
    ("losses", "flat"),
    [
        ([1.0] * 5, False),  # too few to tell
        ([1.0] * 6, True),
        ([10 - 0.1 * n for n in range(30)], False),
        ([10 - 0.1 * n for n in range(30)] + [7.2] * 6, True),
        ([10 - 0.1 * n for n in range(30)] + [7.2] * 3, False),  # the best mean is not three steps old
        ([10 - 0.1 * n + 2 * (n % 2) for n in range(30)], False),  # noise
    ],
)
def test_flat(losses, flat):
    assert is_flat(losses, 3) is flat


def test_a_loss_that_is_no_number_ends_it(network):
    with pytest.raises(UsageError, match="learning_rate = inf: the prompt's loss is nan at step 2"):
        learn(network, 4, learning_rate=float("inf"))
