from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.features.anchoring import PrincipalComponents, fit_principal_components


def maps(seed: int, *shape: int) -> torch.Tensor:
    spread = torch.linspace(3, 1, shape[1])[:, None, None]
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread + 5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.data())
def test_what_any_basis_owes(seed, batch, channels, height, width, data):
    components = data.draw(st.integers(1, channels))
    features = maps(seed, batch, channels, height, width)
    fitted = fit_principal_components(features, components)
    assert fitted.basis.shape == (channels, components)
    exist = min(components, batch * height * width - 1)
    gram = fitted.basis.T @ fitted.basis
    torch.testing.assert_close(gram, torch.diag((torch.arange(components) < exist).float()), atol=1e-5, rtol=0)
    projected = fitted.project(features)
    assert projected.shape == (batch, components, height, width)
    variance = projected.transpose(0, 1).flatten(1).square().sum(1)
    assert (variance[:-1] >= variance[1:] - 1e-3).all()
    torch.testing.assert_close(projected.mean((0, 2, 3)), torch.zeros(components), atol=1e-4, rtol=0)


def test_all_components_keep_every_distance():
    features = maps(0, 1, 6, 5, 7)
    projected = fit_principal_components(features, 6).project(features)
    cells, other = features.flatten(2)[0].T, projected.flatten(2)[0].T
    torch.testing.assert_close(torch.cdist(cells, cells), torch.cdist(other, other), atol=1e-2, rtol=1e-4)


def test_the_first_direction_is_that_of_the_largest_spread_and_points_up():
    along = torch.linspace(-1, 1, 20).reshape(1, 1, 4, 5)
    features = torch.cat([-2 * along, along, 0 * along], 1)
    basis = fit_principal_components(features, 1).basis[:, 0]
    torch.testing.assert_close(basis, torch.tensor([2.0, -1.0, 0.0]) / 5**0.5, atol=1e-6, rtol=0)


def test_a_constant_picture_projects_to_zero():
    features = torch.full((1, 4, 3, 3), 2.0)
    assert fit_principal_components(features, 2).project(features).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rough_features_are_projected_in_full_precision(dtype):
    features = maps(3, 1, 4, 6, 6).to(dtype)
    fitted = fit_principal_components(features, 2)
    assert fitted.project(features).dtype == torch.float32
    exact = PrincipalComponents(fitted.mean, fitted.basis).project(features.float())
    assert torch.equal(fitted.project(features), exact)
