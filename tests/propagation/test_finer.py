from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.finer import by_cell, finer_factor, from_cells, refine_labels
from propagate.propagation.torch.transfer import best_keys
from propagate.propagation.window import Window

GRID = (4, 5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def restricted_search(query, keys, labels, found, factor, top_k, temperature, ties="cut"):
    """Every finer query on its own, against the children of the keys that were found for its cell. Natural layout."""
    _, height, width = keys.shape[0], keys.shape[2] // factor, keys.shape[3] // factor
    result = torch.zeros(labels.shape[1], *query.shape[1:])
    for y in range(query.shape[1]):
        for x in range(query.shape[2]):
            scores, values = [], []
            for key in found[y // factor, x // factor].tolist():
                if key < 0:
                    continue
                frame, cell = divmod(key, height * width)
                top, left = cell // width * factor, cell % width * factor
                for row in range(top, top + factor):
                    for column in range(left, left + factor):
                        scores.append(torch.dot(query[:, y, x], keys[frame, :, row, column].to(query)))
                        values.append(labels[frame, :, row, column])
            if scores:
                score, value = torch.stack(scores), torch.stack(values)
                best = score.topk(min(top_k, len(score)))
                chosen = score >= best.values[-1] if ties == "keep" else best.indices
                result[:, y, x] = torch.softmax(score[chosen] / temperature, 0) @ value[chosen]
    return result


def refined(query, keys, labels, found, factor, **options):
    cells = [by_cell(map_, factor) for map_ in (query, keys, labels)]
    return from_cells(refine_labels(*cells, found, factor=factor, **options), factor)


def test_a_cell_holds_its_children_row_by_row_all_channels_of_each():
    finer = random(3, 8, 10)
    cells = by_cell(finer, 2)
    assert cells.shape == (12, 4, 5)
    children = cells[:, 1, 2].view(2, 2, 3)
    assert torch.equal(children[0, 1], finer[:, 2, 5])
    assert torch.equal(children[1, 0], finer[:, 3, 4])


@given(
    factor=st.integers(1, 4), lead=st.lists(st.integers(1, 2), max_size=2), channels=st.integers(1, 3),
    height=st.integers(1, 4), width=st.integers(1, 4),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_by_cell_and_back(factor, lead, channels, height, width):
    finer = torch.rand(*lead, channels, factor * height, factor * width)
    cells = by_cell(finer, factor)
    assert cells.shape == (*lead, factor**2 * channels, height, width)
    assert torch.equal(from_cells(cells, factor), finer)


@pytest.mark.parametrize(("finer", "factor"), [((8, 10), 2), ((4, 5), 1), ((12, 15), 3)])
def test_the_factor_of_two_grids(finer, factor):
    assert finer_factor(GRID, finer) == factor


@pytest.mark.parametrize("finer", [(8, 9), (7, 10), (2, 2), (8, 15)])
def test_a_grid_that_does_not_divide_the_cells(finer):
    with pytest.raises(ValueError, match=f"a grid of {finer[0]}x{finer[1]} does not divide the cells of one of 4x5"):
        finer_factor(GRID, finer)


@given(
    factor=st.integers(1, 3), frames=st.integers(1, 3), survivors=st.integers(1, 6), top_k=st.integers(1, 8),
    seed=st.integers(0, 999), ties=st.sampled_from(["cut", "keep"]), tile_scores=st.sampled_from([None, 1, 100]),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_it_is_a_search_of_the_children_of_what_was_found(factor, frames, survivors, top_k, seed, ties, tile_scores):
    height, width = GRID
    finer = factor * height, factor * width
    query, keys = normalize(random(6, *finer, seed=seed)), normalize(random(frames, 6, *finer, seed=seed + 1))
    labels = random(frames, 2, *finer, seed=seed + 2)
    generator = torch.Generator().manual_seed(seed)
    # no key twice for one cell, as the search gives them, and some missing
    order = torch.rand(height, width, frames * height * width, generator=generator).argsort(-1)[..., :survivors]
    found = order.masked_fill(torch.rand(order.shape, generator=generator) < 0.2, -1)
    expected = restricted_search(query, keys, labels, found, factor, top_k, 0.1, ties)
    options = {"top_k": top_k, "temperature": 0.1, "ties": ties, "tile_scores": tile_scores}
    torch.testing.assert_close(refined(query, keys, labels, found, factor, **options), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ties", ["cut", "keep"])
def test_where_the_search_keeps_everything_it_is_the_plain_transfer_on_the_finer_grid(ties):
    factor, frames = 2, 2
    finer = factor * GRID[0], factor * GRID[1]
    query, keys, labels = normalize(random(6, *finer)), normalize(random(frames, 6, *finer)), random(frames, 3, *finer)
    everything = torch.arange(frames * GRID[0] * GRID[1]).expand(*GRID, -1)
    options = {"top_k": 5, "temperature": 0.1, "ties": ties}
    plain = propagate_labels(query, keys, labels, window=None, **options)
    torch.testing.assert_close(refined(query, keys, labels, everything, factor, **options), plain, atol=1e-5, rtol=0)


def test_a_coarse_window_is_the_window_of_its_children():
    """A circle of radius 1 lets a cell find only itself: each child looks at its own cell's children and no others."""
    factor = 2
    finer = factor * GRID[0], factor * GRID[1]
    query, keys = normalize(random(6, *finer)), normalize(random(1, 6, *finer))
    number = torch.arange(GRID[0] * GRID[1]).view(*GRID)
    labels = torch.nn.functional.one_hot(number).movedim(-1, 0).float()
    labels = labels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[None]
    coarse = normalize(random(4, *GRID)), normalize(random(1, 4, *GRID))
    found = best_keys(*coarse, window=Window("circle", 1), top_k=3)
    soft = refined(query, keys, labels, found, factor, top_k=3, temperature=0.1)
    assert torch.equal(soft.argmax(0), labels[0].argmax(0))
    torch.testing.assert_close(soft.amax(0), torch.ones(finer))


def test_a_cell_for_which_nothing_was_found_has_no_label():
    query, keys, labels = random(4, 8, 10), random(1, 4, 8, 10), torch.ones(1, 2, 8, 10)
    found = torch.zeros(*GRID, 2, dtype=torch.int64)
    found[1, 2] = -1
    soft = refined(query, keys, labels, found, 2, top_k=3, temperature=0.1)
    assert soft[:, 2:4, 4:6].abs().max() == 0
    soft[:, 2:4, 4:6] = 1
    torch.testing.assert_close(soft, torch.ones_like(soft))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keys_of_half_precision(dtype):
    query, keys, labels = normalize(random(8, 8, 10)), normalize(random(2, 8, 8, 10)).to(dtype), random(2, 2, 8, 10)
    found = torch.arange(6).expand(*GRID, -1)
    expected = restricted_search(query, keys, labels, found, 2, 4, 0.1)
    soft = refined(query, keys, labels, found, 2, top_k=4, temperature=0.1)
    torch.testing.assert_close(soft, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [None, Window("square", 1), Window("circle", 2.5, exempt=(1,))])
@pytest.mark.parametrize("tile_scores", [None, 200])
def test_the_keys_that_are_found_are_those_that_the_transfer_weighs(window, tile_scores):
    query, keys, labels = normalize(random(6, *GRID)), normalize(random(3, 6, *GRID)), random(3, 2, *GRID)
    found = best_keys(query, keys, window=window, top_k=4, tile_scores=tile_scores)
    assert found.shape == (*GRID, 4)
    rows, values = keys.permute(0, 2, 3, 1).flatten(0, 2), labels.permute(0, 2, 3, 1).flatten(0, 2)
    scores = torch.einsum("chw,hwkc->hwk", query, rows[found])
    soft = torch.einsum("hwk,hwkl->lhw", torch.softmax(scores / 0.1, -1), values[found])
    expected = propagate_labels(query, keys, labels, window=window, top_k=4, temperature=0.1)
    torch.testing.assert_close(soft, expected, atol=1e-5, rtol=0)
    assert all(len(set(cell)) == 4 for cell in found.flatten(0, 1).tolist())


def test_keys_that_cannot_be_reached_are_not_found():
    query, keys = normalize(random(6, *GRID)), normalize(random(1, 6, *GRID))
    found = best_keys(query, keys, window=Window("square", 1), top_k=12)
    assert (found >= 0).sum(-1)[0, 0] == 4
    assert (found >= 0).sum(-1)[1, 1] == 9
    assert sorted(found[0, 0][found[0, 0] >= 0].tolist()) == [0, 1, GRID[1], GRID[1] + 1]
    nothing = best_keys(query, keys, window=Window("circle", 0), top_k=2)
    assert (nothing == -1).all()


@pytest.mark.parametrize("ties", ["cut", "keep"])
@pytest.mark.parametrize("top_k", [1, 3, 40])
@pytest.mark.parametrize("channels", [3, 16, 65])
def test_the_compiled_loop_and_torch_agree(top_k, ties, channels, monkeypatch):
    """With cells of which none, some or all keys were found."""
    query, keys = normalize(random(channels, 8, 10)), normalize(random(3, channels, 8, 10, seed=1))
    labels = random(3, 2, 8, 10, seed=2).abs()
    found = torch.randint(-1, 60, (4, 5, 6), generator=torch.Generator().manual_seed(3))
    found[0, 0] = -1
    options = {"top_k": top_k, "temperature": 0.1, "ties": ties}
    compiled = refined(query, keys, labels, found, 2, **options)
    monkeypatch.setattr("propagate.propagation.finer._kernels", lambda: None)
    torch.testing.assert_close(compiled, refined(query, keys, labels, found, 2, **options), atol=1e-5, rtol=1e-5)
    assert (compiled[:, :2, :2] == 0).all()


def test_equal_keys_all_count_if_ties_are_kept():
    """Four equal children of one key, of which one alone is asked for."""
    keys, labels = torch.ones(1, 4, 2, 2), torch.arange(4.0).view(1, 1, 2, 2)
    found = torch.zeros(1, 1, 1, dtype=torch.int64)
    kept = refined(keys[0], keys, labels, found, 2, top_k=1, temperature=0.1, ties="keep")
    assert kept.flatten().tolist() == pytest.approx([1.5] * 4)
    cut = refined(keys[0], keys, labels, found, 2, top_k=1, temperature=0.1)
    assert cut.flatten().tolist() == [0.0] * 4
