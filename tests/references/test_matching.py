from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.references.match_drawings import draw_heat, draw_lines, draw_wheel
from propagate.references.matching import at_points, match_cells, match_points, mutual_neighbors, similarity_maps


def features(seed: int, height: int = 10, width: int = 14) -> torch.Tensor:
    return torch.randn(24, height, width, generator=torch.Generator().manual_seed(seed))


def test_a_shifted_picture_is_matched_cell_by_cell():
    a = features(0)
    b = a.roll((2, 3), (1, 2))
    matches = match_cells(a, b)
    rows, columns = np.indices((10, 14))
    expected = np.stack([(columns + 3) % 14, (rows + 2) % 10], -1).reshape(-1, 2)
    found = torch.stack([matches.best % 14, matches.best // 14], 1)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert matches.mutual.all()
    torch.testing.assert_close(matches.cosine, torch.ones(140))
    np.testing.assert_allclose(matches.positions.numpy(), expected, atol=0.01)


def test_a_cell_of_which_the_other_picture_has_no_copy_is_not_mutual():
    a, b = features(0), features(0)
    # cell (row 1, column 1) is a weak copy of (8, 12), whose own match is better
    a[:, 1, 1] = a[:, 8, 12] + 0.5 * features(3)[:, 0, 0]
    b[:, 1, 1] = -b[:, 1, 1]
    matches = match_cells(a, b)
    lost = 14 + 1
    assert int(matches.best[lost]) == 8 * 14 + 12
    assert not matches.mutual[lost]
    assert int((~matches.mutual).sum()) == 1


def test_the_position_between_two_equally_similar_cells_lies_between_them():
    b = torch.zeros(3, 5, 9)
    b[0] = 1
    b[:, 2, 4] = b[:, 2, 5] = torch.tensor([0.0, 1, 0])
    a = torch.zeros(3, 5, 9)
    a[1] = 1
    found = match_points(a, torch.tensor([[3.0, 3.0]]), b)
    torch.testing.assert_close(found.positions, torch.tensor([[4.5, 2.0]]))


def test_points_between_cells_are_interpolated_and_the_border_is_repeated():
    a = torch.zeros(2, 1, 2)
    a[0, 0, 0] = a[1, 0, 1] = 1
    found = at_points(a, torch.tensor([[0.5, 0.0], [-0.5, -0.4], [1.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [1, 0], [0, 1]]))


def test_similarity_maps_are_the_cosines():
    a, b = features(0), features(1, 4, 6)
    maps = similarity_maps(a, torch.tensor([[3.0, 2.0]]), b)
    expected = torch.nn.functional.cosine_similarity(a[:, 2, 3, None, None], b, dim=0)
    torch.testing.assert_close(maps[0], expected)


def test_unknown_cells_are_no_neighbors():
    query = torch.nn.functional.normalize(features(0), dim=0)
    known = torch.ones(1, 10, 14, dtype=torch.bool)
    cosine, mutual = mutual_neighbors(query, query[None], known)
    assert mutual.all()
    torch.testing.assert_close(cosine, torch.ones(10, 14))
    known[0, :5] = False
    cosine, mutual = mutual_neighbors(query, query[None], known)
    assert mutual[5:].all()
    assert cosine[:5].max() < 0.9


def test_lines_are_green_and_thick_for_sure_matches_and_red_and_thin_for_others():
    black = np.zeros((400, 400, 3), np.uint8)
    points = np.array([[50.0, 100.0], [50.0, 300.0]])
    drawn = draw_lines(black, black, points, points, np.array([1.0, 0.0]), np.array([True, False]))
    assert drawn.shape == (400, 808, 3)
    column = drawn[:, 250].astype(int)
    green, red = column[:, 1] - column[:, 0], column[:, 0] - column[:, 1]
    assert (green > 200).sum() == 3
    assert abs(int(green.argmax()) - 100) <= 1
    assert (red > 200).sum() == 1
    assert abs(int(red.argmax()) - 300) <= 1


def test_heat_is_red_where_similarity_is_greatest_and_blue_where_least():
    similarity = np.zeros((4, 4))
    similarity[0, 0], similarity[3, 3] = 1, -1
    drawn = draw_heat(np.zeros((80, 80, 3), np.uint8), similarity, np.array([40.0, 40.0])).astype(int)
    assert drawn[2, 2, 0] > drawn[2, 2, 2] + 30
    assert drawn[77, 77, 2] > drawn[77, 77, 0] + 30
    assert drawn[40, 40].tolist() == [255, 255, 255]


@pytest.mark.parametrize("sure", [True, False])
def test_the_wheel_gives_a_cell_the_color_of_its_match(sure):
    a, b = np.full((40, 40, 3), 90, np.uint8), np.full((40, 60, 3), 90, np.uint8)
    field = np.zeros((5, 5, 2))
    field[:] = (50.0, 10.0)
    drawn = draw_wheel(a, b, field, np.full((5, 5), sure))
    right = drawn[:, -60:]
    if sure:
        assert np.abs(drawn[20, 20].astype(int) - right[10, 50]).max() <= 1
        assert np.ptp(right[10, 50].astype(int)) > 30
    else:
        assert drawn[20, 20].tolist() == [90, 90, 90]


def test_a_long_strip_beside_a_picture_does_not_blow_it_up():
    """Enlarged to the strip's height, the other picture would have gigabytes."""
    strip, picture = np.zeros((30_000, 2, 3), np.uint8), np.full((8, 12, 3), 9, np.uint8)
    drawn = draw_wheel(strip, picture, np.zeros((1, 1, 2), np.float32), np.ones((1, 1), bool))
    assert len(drawn) == 30_000
    assert drawn.shape[1] < 6_000
    none = np.zeros((0, 2), np.float32)
    drawn = draw_lines(strip, picture, none, none, np.zeros(0, np.float32), np.zeros(0, bool))
    assert drawn.shape[1] < 6_000
    assert (drawn[10, 100] == 9).all()
    assert (drawn[-1, 100] == 255).all()
