from __future__ import annotations

import pytest
import torch
from torch import nn

from propagate.features.diffusion.core import Noise, draws_at_once, ensemble_features, linear_alphas_cumprod, run_until


def test_shared_noise_is_the_same_for_every_frame_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    noise = Noise(ensemble_size=3, seed=7)
    first, later = noise.draw((2, 4, 5), index=0), noise.draw((2, 4, 5), index=9)
    assert torch.equal(first, later)
    assert torch.equal(first, torch.randn((3, 2, 4, 5), generator=torch.Generator().manual_seed(7)))
    assert torch.equal(torch.get_rng_state(), state)


def test_fresh_noise_differs_between_frames_and_is_repeatable():
    noise = Noise(ensemble_size=2, seed=7, mode="fresh")
    assert not torch.equal(noise.draw((2, 4, 5), index=0), noise.draw((2, 4, 5), index=1))
    assert torch.equal(noise.draw((2, 4, 5), index=3), noise.draw((2, 4, 5), index=3))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_antithetic_pairs_cancel(size):
    draws = Noise(ensemble_size=size, mode="antithetic").draw((1, 3, 3))
    assert draws.shape == (size, 1, 3, 3)
    pairs = draws[: size // 2 * 2].view(-1, 2, 1, 3, 3)
    assert torch.equal(pairs[:, 0], -pairs[:, 1])


def test_schedule_is_the_published_one():
    kept = linear_alphas_cumprod()
    assert kept.shape == (1000,)
    assert float(kept[51]) == pytest.approx(0.9689, abs=5e-5)  # guided-diffusion's values
    assert float(kept[261]) == pytest.approx(0.4924, abs=5e-5)


def test_the_ensemble_is_the_mean_over_its_draws():
    clean = torch.randn(2, 3, 4, 4)
    noise = Noise(ensemble_size=4, seed=1)
    found = ensemble_features(clean, lambda noisy: noisy**3, noise=noise, alpha_bar=0.36)
    draws = noise.draw((3, 4, 4))
    expected = torch.stack([(0.6 * clean + 0.8 * eps) ** 3 for eps in draws]).mean(0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["shared", "fresh", "antithetic"])
def test_a_batch_gives_what_its_frames_give_alone(mode):
    clean = torch.randn(3, 2, 4, 4)
    options = {"noise": Noise(ensemble_size=2, mode=mode), "alpha_bar": 0.9}
    together = ensemble_features(clean, torch.tanh, **options, indices=[4, 5, 6])
    for place, index in enumerate([4, 5, 6]):
        alone = ensemble_features(clean[place : place + 1], torch.tanh, **options, indices=[index])
        torch.testing.assert_close(together[place : place + 1], alone)


@pytest.mark.parametrize("draws_per_pass", [2, 3, 5, 9])
@pytest.mark.parametrize("mode", ["shared", "fresh", "antithetic"])
def test_the_result_does_not_depend_on_how_many_draws_share_a_pass(mode, draws_per_pass):
    clean = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    options = {"noise": Noise(ensemble_size=5, mode=mode), "alpha_bar": 0.7, "indices": [3, 8]}
    batches = []

    def activation(noisy):
        batches.append(len(noisy))
        return torch.sin(3 * noisy)

    found = ensemble_features(clean, activation, **options, draws_per_pass=draws_per_pass)
    torch.testing.assert_close(found, ensemble_features(clean, lambda noisy: torch.sin(3 * noisy), **options))
    assert sum(batches) == 10
    assert max(batches) == 2 * min(draws_per_pass, 5)


def test_every_draw_can_have_a_clean_input_of_its_own():
    clean = torch.randn(3, 2, 1, 4, 4)
    noise = Noise(ensemble_size=3, seed=2)
    found = ensemble_features(clean, torch.tanh, noise=noise, alpha_bar=0.64, draws_per_pass=2)
    pairs = zip(clean, noise.draw((1, 4, 4)), strict=True)
    expected = torch.stack([torch.tanh(0.8 * own + 0.6 * eps) for own, eps in pairs])
    torch.testing.assert_close(found, expected.mean(0))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + 1


def test_the_network_is_not_run_beyond_the_tapped_module():
    first, second = Counting(), Counting()
    network = nn.Sequential(first, second)
    assert run_until(first, lambda: network(torch.zeros(1))).item() == 1
    assert (first.calls, second.calls) == (1, 0)
    assert network(torch.zeros(1)).item() == 2  # the hook is gone


def test_a_module_that_is_never_reached_is_an_error():
    with pytest.raises(RuntimeError, match="never reached the tapped Counting"):
        run_until(Counting(), lambda: None)


def test_an_error_inside_the_network_passes_through_and_leaves_no_hook():
    module = Counting()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_until(module, fail)
    assert module(torch.zeros(1)).item() == 1


@pytest.mark.parametrize("draws_per_pass", [2, 3, 4, 7])
def test_the_order_of_the_sum_does_not_depend_on_how_many_draws_share_a_pass(draws_per_pass):
    clean = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    options = {"noise": Noise(ensemble_size=7), "alpha_bar": 0.5}
    found = ensemble_features(clean, lambda noisy: noisy * noisy, **options, draws_per_pass=draws_per_pass)
    assert torch.equal(found, ensemble_features(clean, lambda noisy: noisy * noisy, **options, draws_per_pass=1))


@pytest.mark.parametrize(
    ("wanted", "device", "expected"),
    [(None, "cpu", 1), (None, "cuda", 8), (3, "cpu", 3), (3, "cuda", 3), (20, "cpu", 8)],
)
def test_draws_that_share_a_pass(wanted, device, expected):
    assert draws_at_once(wanted, 8, torch.device(device)) == expected
