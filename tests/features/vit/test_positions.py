from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.features.vit.positions import PositionRule, RotaryPositions, interpolate_positions
from propagate.planning.dry_run import dry_run

sides = st.integers(1, 9)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, torch's."""
    d = abs(distance)
    if d <= 1:
        return 1.25 * d**3 - 2.25 * d**2 + 1
    return -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3 if d < 2 else 0.0


def resampling(own: int, cells: int, offset: float) -> torch.Tensor:
    """(cells, own): the weights along one axis; cell i lies at (i + 0.5) * own / (cells + offset) - 0.5."""
    weights = torch.zeros(cells, own, dtype=torch.float64)
    for i in range(cells):
        place = (i + 0.5) * own / (cells + offset) - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[i, min(max(tap, 0), own - 1)] += cubic(place - tap)
    return weights


@settings(deadline=None, max_examples=25)
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.sampled_from([0.0, 0.1]))
def test_positions_are_bicubic_with_the_offset_in_the_step(trained, grid, offset):
    table = torch.randn(1, 1 + trained[0] * trained[1], 3, generator=torch.Generator().manual_seed(0))
    moved = interpolate_positions(table, trained, grid, PositionRule(offset))
    assert torch.equal(moved[:, :1], table[:, :1])
    if trained == grid:
        assert moved is table
        return
    patches = table[0, 1:].double().unflatten(0, trained)
    rows, columns = (resampling(own, cells, offset) for own, cells in zip(trained, grid, strict=True))
    expected = torch.einsum("yi,xj,ijd->yxd", rows, columns, patches)
    torch.testing.assert_close(moved[0, 1:].double().unflatten(0, grid), expected, atol=1e-4, rtol=1e-4)


def test_antialiasing_averages_where_the_grid_becomes_coarser():
    table = torch.zeros(1, 1 + 12 * 12, 1)
    stripes = torch.tensor([0.0, 1.0, 0.0] * 4)
    table[0, 1:, 0] = stripes.repeat(12)
    plain, smooth = (
        interpolate_positions(table, (12, 12), (12, 4), PositionRule(0, antialias))[0, 1:, 0]
        for antialias in (False, True)
    )
    torch.testing.assert_close(plain, torch.ones(48))  # every sample lies on a stripe
    torch.testing.assert_close(smooth, torch.full((48,), 1 / 3), atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_table_in_half_precision_is_interpolated_in_float32(dtype):
    table = torch.randn(1, 26, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    moved = interpolate_positions(table, (5, 5), (7, 9), PositionRule(0.1))
    assert moved.dtype == dtype
    expected = interpolate_positions(table.float(), (5, 5), (7, 9), PositionRule(0.1))
    assert torch.equal(moved, expected.to(dtype))


def test_rotary_angles_are_the_formula():
    cosines, sines = RotaryPositions(100.0, 8, 16)(torch.zeros(1, 3, 48, 80))
    assert cosines.shape == sines.shape == (15, 8)
    for cell, (row, column) in enumerate((r, c) for r in range(3) for c in range(5)):
        y, x = 2 * (row + 0.5) / 3 - 1, 2 * (column + 0.5) / 5 - 1
        angles = [2 * math.pi * y, 2 * math.pi * y / 10, 2 * math.pi * x, 2 * math.pi * x / 10] * 2
        torch.testing.assert_close(cosines[cell], torch.tensor(angles).cos(), atol=1e-5, rtol=0)
        torch.testing.assert_close(sines[cell], torch.tensor(angles).sin(), atol=1e-5, rtol=0)


def test_rotary_angles_leave_nothing_behind_after_a_dry_run():
    rotary = RotaryPositions(100.0, 8, 16)
    dry_run(lambda: rotary(torch.empty(1, 3, 32, 32))[0])
    assert rotary(torch.zeros(1, 3, 32, 32))[0].isfinite().all()
