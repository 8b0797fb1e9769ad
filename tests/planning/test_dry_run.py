from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from propagate.planning.dry_run import dry_run

KEPT: list[torch.Tensor] = []


def created(computation) -> int:
    return dry_run(computation).created


def test_the_most_that_is_alive_at_a_time_counts():
    def computation():
        a = torch.empty(1000)  # 4000 bytes
        b = a.double()  # 8000
        del a
        return b[:10] * 2  # 80

    assert created(computation) == 12000


def test_what_is_released_is_not_counted_again():
    def computation():
        x = torch.empty(1000)
        for _ in range(50):
            x = x + 1  # the old and the new one: 8000 bytes
        return x

    assert created(computation) == 8000


@pytest.mark.parametrize(
    "view", [lambda x: x.view(10, 100), lambda x: x[5:], lambda x: x.reshape(50, 20).T, lambda x: x.expand(9, 1000)]
)
def test_views_take_nothing(view):
    assert created(lambda: view(torch.empty(1000))) == 4000


def test_what_is_done_in_place_takes_nothing():
    assert created(lambda: torch.empty(1000).add_(1).clamp_(min=0)) == 4000


def test_weights_count_once_and_only_where_they_are_used():
    used, unused = torch.nn.Linear(8, 4), torch.nn.Linear(100, 100)
    footprint = dry_run(lambda: used(used(torch.empty(2, 8)) @ torch.empty(4, 8)))
    assert unused.weight.numel() == 10000
    assert footprint.given == (8 * 4 + 4) * 4
    assert footprint.device == "cpu"


def test_weights_that_share_their_memory_count_once():
    weight = torch.ones(1000)
    assert dry_run(lambda: torch.empty(500) + weight[:500] + weight[500:]).given == 4000


def test_nothing_is_computed():
    assert created(lambda: torch.empty(2**20, 2**20)) == 2**42  # 4 TiB


def test_the_weights_are_as_they_were():
    layer = torch.nn.Linear(8, 4)
    before = layer.weight.clone()
    dry_run(lambda: layer(torch.empty(2, 8)))
    assert torch.equal(layer.weight, before)
    assert type(layer(torch.ones(2, 8))) is torch.Tensor


def test_a_tensors_content_cannot_be_had():
    with pytest.raises(DataDependentOutputException):
        dry_run(lambda: torch.zeros(int((torch.empty(3) + 1).sum().item())))


def test_a_tensor_that_is_kept_is_an_error():
    def computation():
        KEPT.append(torch.empty(10))
        return KEPT[0] + 1

    with pytest.raises(RuntimeError, match="keeps tensors from one call to the next"):
        dry_run(computation)
    KEPT.clear()


def test_a_circle_of_references_is_not_kept():
    def computation():
        circle = [torch.empty(10)]
        circle.append(circle)
        return torch.empty(5)

    assert created(computation) == 60
