from __future__ import annotations

import pytest
import torch

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.dense import dense_transfer
from propagate.propagation.window import Window

CHANNELS, GRID = 6, (5, 7)


def tensors(frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    query = normalize(torch.randn(CHANNELS, *GRID, generator=generator))
    keys = normalize(torch.randn(frames, CHANNELS, *GRID, generator=generator))
    return query, keys, torch.rand(frames, 3, *GRID, generator=generator)


@pytest.mark.parametrize(
    "window", [None, Window("square", 1), Window("square", 2.5, exempt=(0,)), Window("circle", 2), Window("circle", 9)]
)
@pytest.mark.parametrize("top_k", [1, 4, 1000])
def test_the_same_labels_as_the_program(window, top_k):
    query, keys, labels = tensors(3)
    found = dense_transfer(query, keys, labels, window=window, top_k=top_k, temperature=0.2)
    ours = propagate_labels(query, keys, labels, window=window, top_k=top_k, temperature=0.2, ties="keep")
    torch.testing.assert_close(found, ours, rtol=1e-5, atol=1e-5)


def test_one_reachable_key_gives_its_label():
    query, keys, labels = tensors(1)
    found = dense_transfer(query, keys, labels, window=Window("square", 0), top_k=5, temperature=0.1)
    torch.testing.assert_close(found, labels[0])


def test_every_key_that_equals_the_kth_counts():
    query, _, _ = tensors(1)
    labels = torch.tensor([[[[0.0, 1.0]]]])
    same = query[:, :1, :1]
    found = dense_transfer(
        same.expand(-1, 1, 2), same.expand(-1, 1, 2)[None], labels, window=None, top_k=1, temperature=1
    )
    torch.testing.assert_close(found, torch.full((1, 1, 2), 0.5))


def test_keys_of_half_precision():
    query, keys, labels = tensors(2)
    found = dense_transfer(query, keys.half(), labels, window=None, top_k=3, temperature=0.2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, dense_transfer(query, keys.half().float(), labels, window=None, top_k=3, temperature=0.2)
    )
