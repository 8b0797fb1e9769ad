from __future__ import annotations

import gc

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from propagate.errors import UsageError
from propagate.features.learned_prompts.cross_attention import AttentionRecorder
from propagate.features.learned_prompts.learning import View, attention_loss
from propagate.features.learned_prompts.prompt_attention import PUBLISHED_LAYERS
from propagate.features.learned_prompts.targets import PointTarget, whole
from tests.features.learned_prompts.tiny_attention import SIZE, picture, tiny_attention


@pytest.fixture(scope="module")
def network():
    return tiny_attention(layers=PUBLISHED_LAYERS).network


def passed(network, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn((2, 4, 8, 12), generator=generator)
    return noisy, torch.randn((2, 77, network.width), generator=generator)


@torch.no_grad()
def test_maps_are_shares_on_each_layers_grid(network):
    noisy, embeddings = passed(network)
    maps = network.maps(noisy, 40, embeddings)
    # up block 1 is at half, up block 2 at all of the resolution that its input has: strides 32 and 16, of 64 x 96
    assert [tuple(layer.shape[-2:]) for layer in maps] == [(2, 3)] * 3 + [(4, 6)]
    for layer in maps:
        assert layer.shape[0] == 2
        assert 0 <= layer.min() <= layer.max() <= 1


@torch.no_grad()
@pytest.mark.parametrize(("latents", "grids"), [((9, 13), [(3, 4), (5, 7)]), ((8, 11), [(2, 3), (4, 6)])])
def test_odd_sizes(network, latents, grids):
    _, embeddings = passed(network)
    maps = network.maps(torch.zeros(1, 4, *latents), 40, embeddings[:1])
    assert [tuple(layer.shape[-2:]) for layer in maps] == [grids[0]] * 3 + [grids[1]]


@torch.no_grad()
def test_each_picture_has_its_own_embedding(network):
    noisy, embeddings = passed(network)
    together = network.maps(noisy, 40, embeddings)
    for number in range(2):
        alone = network.maps(noisy[number : number + 1], 40, embeddings[number : number + 1])
        for layer, own in zip(together, alone, strict=True):
            torch.testing.assert_close(layer[number], own[0], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_an_attention_gives_what_it_gives_without_recording(network):
    module = network.transformers[3].transformer_blocks[0].attn2
    generator = torch.Generator().manual_seed(0)
    states = torch.randn((2, 24, module.to_q.in_features), generator=generator)
    prompts = torch.randn((2, 77, network.width), generator=generator)
    recorder = AttentionRecorder()
    recorder.is_recording = True
    found = recorder(module, states, prompts)
    torch.testing.assert_close(found, AttnProcessor()(module, states, prompts))
    # all heads' shares of all vectors sum to 1; of those the second half of the heads and one vector are given
    query, key = (
        part.view(2, -1, module.heads, part.shape[-1] // module.heads).transpose(1, 2)
        for part in (module.to_q(states), module.to_k(prompts))
    )
    shares = (query @ key.transpose(2, 3) * module.scale).softmax(-1)
    torch.testing.assert_close(recorder.take(2, (4, 6)), shares[:, module.heads // 2 :, :, 1].reshape(2, -1, 4, 6))


def test_checkpointing_changes_neither_loss_nor_gradient_and_keeps_nothing():
    found = []
    for checkpointing in (False, True):
        network = tiny_attention(checkpointing=checkpointing).network
        _, embeddings = passed(network)
        embedding = embeddings[:1].clone().requires_grad_()
        noise = torch.rand((1, 4, 8, 12), generator=torch.Generator().manual_seed(1))
        view = View(whole(SIZE), noise)
        loss = attention_loss(network, picture()[None], PointTarget((30.0, 30.0), 9.0), embedding, view, 140)
        loss.backward()
        found.append((loss.item(), embedding.grad))
        gc.collect()
        assert all(recorder._attention is None for recorder in network.recorders)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([[1, 3]], r"up block 1 has no cross-attention in layer 3. It has layers 0 to 2"),
        ([[0, 0]], r"up block 0 has no cross-attention in layer 0. It has none"),
        ([[9, 0]], r"there is no such block"),
    ],
)
def test_layers_that_are_not_there(layers, message):
    with pytest.raises(UsageError, match=message):
        tiny_attention(layers=layers)
