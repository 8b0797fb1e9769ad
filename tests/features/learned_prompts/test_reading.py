from __future__ import annotations

import pytest
import torch

from propagate.features.learned_prompts.learning import FrameView, frame_views, one_map, pooled, read_attention
from propagate.features.learned_prompts.prompt_attention import PUBLISHED_LAYERS
from propagate.features.learned_prompts.targets import Crop, whole
from tests.features.learned_prompts.tiny_attention import SIZE, picture, tiny_attention

LATENTS = (4, 8, 12)


@pytest.fixture(scope="module")
def network():
    return tiny_attention(layers=PUBLISHED_LAYERS).network


def embeddings(network, count: int) -> torch.Tensor:
    return torch.randn((count, 77, network.width), generator=torch.Generator().manual_seed(0))


def read(network, views, count: int = 3, **options):
    with torch.no_grad():
        return read_attention(network, picture()[None], embeddings(network, count), views, timestep=40, **options)


def views(count: int, seed: int = 0) -> list[FrameView]:
    return frame_views(SIZE, LATENTS, count=count, portion=0.75, seed=seed)


@pytest.mark.parametrize("count", [1, 6])
def test_a_prompts_attention_does_not_depend_on_the_others(network, count):
    together = read(network, views(count), prompts_per_pass=3)
    assert together.shape == (3, 4, *SIZE)
    torch.testing.assert_close(read(network, views(count), prompts_per_pass=2), together, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(read(network, views(count), 1), together[:1], rtol=1e-3, atol=1e-6)


def test_looks_are_the_seeds():
    assert [view.crop for view in views(1)] == [whole(SIZE)]
    first, again, other = views(5), views(5), views(5, seed=1)
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].noise, other[0].noise)
    assert [view.crop for view in first[:4]] == [
        Crop(top, 48, left, 72) for top, left in ((0, 0), (16, 0), (0, 24), (16, 24))
    ]
    assert first[4].crop((90.0, 60.0)) == again[4].crop((90.0, 60.0))


def test_the_mean_is_over_the_looks_that_see_a_pixel(network):
    noise = views(1)[0].noise
    left, right = Crop(0, 64, 0, 64), Crop(0, 64, 32, 64)
    one, two, both = (
        read(network, [FrameView(crop, noise) for crop in crops], 1) for crops in ([left], [right], [left, right])
    )
    assert one[..., 64:].max() == 0
    torch.testing.assert_close(both[..., :32], one[..., :32])
    torch.testing.assert_close(both[..., 32:64], (one + two)[..., 32:64] / 2)
    torch.testing.assert_close(both[..., 64:], two[..., 64:])


def test_later_looks_are_at_the_peak_of_those_before(network):
    noise, asked = views(1)[0].noise, []

    def crop_around(point):
        asked.append(point)
        return whole(SIZE)

    first = read(network, [FrameView(whole(SIZE), noise)], 2)
    read(network, [FrameView(whole(SIZE), noise), FrameView(crop_around, noise)], 2)
    places = [divmod(int(place), SIZE[1]) for place in first.mean(1).flatten(1).argmax(1)]
    assert asked == [(x + 0.5, y + 0.5) for y, x in places]


def test_layers_that_agree_give_what_they_have():
    layer = torch.rand((8, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one_map(layer.expand(4, 8, 12)), layer)


def test_one_map_is_the_mean_of_the_layers_distributions_on_a_scale_of_attention():
    maps = torch.rand((2, 3, 8, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = one_map(maps)
    expected = maps.flatten(2).softmax(2).mean(1)
    torch.testing.assert_close(found.flatten(1).softmax(1), expected)
    assert (found >= maps.amin(1) - 1e-9).all()
    assert (found <= maps.amax(1) + 1e-9).all()


def test_cells_are_the_mean_of_their_pixels():
    cells = pooled(torch.arange(16.0).view(1, 4, 4), 2)
    torch.testing.assert_close(cells[0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
