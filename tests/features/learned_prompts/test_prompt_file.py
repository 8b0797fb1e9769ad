from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from propagate.errors import InputError
from propagate.features.learned_prompts.prompt_file import LearnedPrompts, load_prompts

LAYERS = [[1, 0], [2, 0]]
FITTING = {"model": "abc", "width": 24, "layers": LAYERS}


def prompts() -> LearnedPrompts:
    generator = torch.Generator().manual_seed(0)
    embeddings = {name: torch.randn((2, 77, 24), generator=generator) for name in ("left ear / \u00f6", "3")}
    losses = dict.fromkeys(embeddings, ((0.5, 0.25), (0.75, 0.125)))
    return LearnedPrompts(embeddings, "abc", {"seed": 3, "layers": LAYERS}, losses)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "prompt.safetensors"
    prompts().save(path)
    return path


def test_what_was_saved_comes_back(file):
    found, expected = load_prompts(file, **FITTING), prompts()
    assert list(found.embeddings) == list(expected.embeddings)
    for name, embedding in expected.embeddings.items():
        assert torch.equal(found.embeddings[name], embedding)
    assert (found.model, found.settings, found.losses) == (expected.model, expected.settings, expected.losses)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "other"}, "learned with other weights than these"),
        ({"width": 32}, "are 24 wide, this model's are 32"),
        ({"layers": [[1, 0]]}, r"features.layers = \[\[1, 0\], \[2, 0\]\], not \[\[1, 0\]\]"),
    ],
)
def test_prompts_of_another_model_are_refused(file, changed, message):
    with pytest.raises(InputError, match=message) as caught:
        load_prompts(file, **{**FITTING, **changed})
    assert caught.value.remedy


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"embedding = .*nowhere.safetensors: there is no such file"):
        load_prompts(tmp_path / "nowhere.safetensors", **FITTING)


def test_a_damaged_file(file):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"damaged or not a .safetensors file"):
        load_prompts(file, **FITTING)


def test_other_tensors(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds no learned prompts"):
        load_prompts(tmp_path / "other.safetensors", **FITTING)
