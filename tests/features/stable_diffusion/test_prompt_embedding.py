from __future__ import annotations

import gc
import os
import shutil
import sys

import pytest
import torch
from transformers import CLIPTextModel

from propagate.errors import UsageError, WeightsError
from propagate.features import build_extractor
from propagate.features.networks.loading import weight_files
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.features.stable_diffusion.prompt_embedding import TextEncoder, prompt_embedding
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY

UNET = weight_files(SD_TINY / "unet")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dift-propagate" / "prompts"


@pytest.fixture
def pipeline(tmp_path):
    return shutil.copytree(SD_TINY, tmp_path / "pipeline", copy_function=shutil.copyfile)


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """The prompts that went through the text model."""
    prompts = []
    plain = TextEncoder.embed

    def counted(self, prompt):
        prompts.append(prompt)
        return plain(self, prompt)

    monkeypatch.setattr(TextEncoder, "embed", counted)
    return prompts


def embedded(folder=SD_TINY, prompt: str = "") -> torch.Tensor:
    return prompt_embedding(prompt, open_pipeline(folder).text_encoder, UNET)


def test_the_text_encoder_runs_once_and_is_released(runs):
    extractor = build_extractor("dift_sd", weights=str(SD_TINY), device="cpu")
    for _ in range(2):
        extractor(torch.rand(1, 3, 64, 64))
    assert runs == [""]
    gc.collect()
    assert not any(type(thing) is CLIPTextModel for thing in gc.get_objects())


def test_later_runs_do_not_load_it(runs):
    first = embedded()
    assert torch.equal(embedded(), first)
    embedded(prompt="a photo of a dog")
    assert runs == ["", "a photo of a dog"]


def test_later_runs_do_not_need_it(pipeline):
    images = torch.rand(1, 3, 64, 64)
    first = build_extractor("dift_sd", weights=str(pipeline), device="cpu")(images)
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(pipeline / part)
    again = build_extractor("dift_sd", weights=str(pipeline), device="cpu")(images)
    assert torch.equal(again, first)
    with pytest.raises(WeightsError, match="no earlier run left the embedding of the prompt 'a cat'"):
        build_extractor("dift_sd", weights=str(pipeline), prompt="a cat", device="cpu")


def test_another_unet_does_not_get_it(pipeline, tmp_path):
    embedded(pipeline)
    other = tmp_path / "other.safetensors"
    content = bytearray(UNET[0].read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(WeightsError, match="has no text encoder"):
        prompt_embedding("", None, (other,))


@pytest.mark.parametrize("part", ["text_encoder/model.safetensors", "tokenizer/vocab.json", "text_encoder/config.json"])
def test_it_is_computed_again_for_other_files(pipeline, runs, part):
    embedded(pipeline)
    path = pipeline / part
    content = bytearray(path.read_bytes())
    place = -2 if path.suffix == ".safetensors" else content.index(b"\n" if b"\n" in content else b" ")
    content[place] = content[place] ^ 1 if path.suffix == ".safetensors" else ord("\t")
    path.write_bytes(content)
    embedded(pipeline)
    assert len(runs) == 1 + (part != "text_encoder/config.json")


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_entry_is_ignored_and_replaced(cache, runs, damage):
    first = embedded()
    entries = list(cache.iterdir())
    assert {entry.suffix for entry in entries} == {".safetensors"}
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:200] if damage is None else damage)
    assert torch.equal(embedded(), first)
    assert torch.equal(embedded(), first)
    assert len(runs) == 2


@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_what_lies_beside_the_tokenizers_files_does_not_matter(pipeline, runs, make):
    embedded(pipeline)
    getattr(os, make)(pipeline / "tokenizer" / "other")
    embedded(pipeline)
    assert runs == [""]


def test_what_a_killed_run_left_is_written_over(cache):
    first = embedded()
    for entry in list(cache.iterdir()):
        entry.with_name(f".{entry.name}").write_bytes(entry.read_bytes()[:100])
        entry.unlink()
    assert torch.equal(embedded(), first)
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_no_error(cache):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder should be", encoding="utf-8")
    assert embedded().shape == (1, 77, 32)


def test_a_prompt_that_is_too_long_is_refused():
    encoder = open_pipeline(SD_TINY).text_encoder
    assert encoder.token_ids("dog " * 10).shape == (1, 77)
    with pytest.raises(UsageError, match="takes 77"):
        encoder.token_ids("dog " * 200)


def test_without_transformers_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"transformers is not installed.*pip install transformers"):
        build_extractor("dift_sd", weights=str(SD_TINY), device="cpu")
