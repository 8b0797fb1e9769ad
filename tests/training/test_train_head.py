from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

from propagate.features import build_extractor
from propagate.features.compact.compact import UNET_CONFIG, load_unet
from propagate.features.compact.head import FILE
from tests.training.pictures import smooth_noise
from training import train_head
from training.scenes import SceneBatches, SceneSettings
from training.train_head import RECIPE, HeadTrainer


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The same network with few channels."""
    torch.manual_seed(0)
    config = {**UNET_CONFIG, "block_out_channels": (16, 16, 32, 32)}
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps({"unet": config}), encoding="utf-8")
    save_file(UNet2DModel(**config).state_dict(), folder / "model.safetensors")
    return folder


def trainer(model: Path, seed: int = 0, **options: Any) -> HeadTrainer:
    recipe = replace(RECIPE, warmup=1, steps=10)
    return HeadTrainer(
        load_unet(model), recipe, torch.device("cpu"), seed, **{"projection": 32, "norm_groups": 4, **options}
    )


def scenes(start: int = 0) -> Iterator[dict[str, torch.Tensor]]:
    photos = [smooth_noise(seed, 80, 90) for seed in range(3)]
    return iter(SceneBatches(photos, [], SceneSettings(size=64), batch=2, seed=0, start=start))


@pytest.mark.parametrize("options", [{}, {"timesteps": (51, 261), "layers": ("up_blocks.1.resnets.0", "up_blocks.1")}])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(model, options, tmp_path):
    whole, first = trainer(model, **options), trainer(model, **options)
    data = scenes()
    one, two = next(data), next(data)
    assert set(whole.train_step(one)) == {"match", "transfer"}
    first.train_step(one)
    first.save(tmp_path)
    resumed = trainer(model, seed=0, **options)
    resumed.resume(tmp_path)
    assert resumed.step == 1
    expected, found = whole.train_step(two), resumed.train_step(next(scenes(start=1)))
    assert found == pytest.approx(expected, rel=1e-4)
    for name, value in whole.head.state_dict().items():
        torch.testing.assert_close(resumed.head.state_dict()[name], value, atol=1e-6, rtol=1e-4)


def test_the_head_alone_is_trained_and_all_of_it(model):
    run = trainer(model)
    head = {name: value.clone() for name, value in run.head.state_dict().items()}
    networks = [{name: value.clone() for name, value in network.state_dict().items()} for network in run.networks]
    run.train_step(next(scenes()))
    for name, value in run.head.state_dict().items():
        assert not torch.equal(value, head[name]), name
    for network, before in zip(run.networks, networks, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_a_run_is_a_function_of_its_seed(model):
    batch = next(scenes())
    losses = [trainer(model, seed).train_step(batch)["match"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_the_losses_fall_on_a_batch_seen_again_and_again(model):
    run, batch = trainer(model), next(scenes())
    losses = [run.train_step(batch) for _ in range(10)]
    assert losses[-1]["match"] < losses[0]["match"]


def test_a_layer_that_is_not_there_is_named(model):
    with pytest.raises(KeyError, match=r"up_blocks\.2\.resnets\.7"):
        trainer(model, layers=("up_blocks.2.resnets.7",))


def test_an_export_is_what_the_extractor_takes(model, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(train_head.RECIPE.batch):
        cv2.imwrite(str(photos / f"{seed}.jpg"), smooth_noise(seed))
    arguments = ["--photos", photos, "--model", model, "--run", tmp_path / "run", "--projection", 64, "--stop-at", 1]
    monkeypatch.setattr("sys.argv", ["train_head", *map(str, arguments)])
    train_head.main()
    extractor = build_extractor("compact", weights=model, head=tmp_path / "run" / FILE, device="cpu")
    assert extractor(torch.rand(1, 3, 32, 64)).shape == (1, 64, 4, 8)
