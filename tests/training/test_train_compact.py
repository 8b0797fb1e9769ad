from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from propagate.features import build_extractor
from training import export_compact
from training.crops import CropBatches
from training.scenes import SceneBatches, SceneSettings
from training.train_compact import RECIPES, Trainer, read_weights

PHOTOS = [np.random.default_rng(n).integers(0, 255, (80, 90, 3), np.uint8) for n in range(3)]


def trainer(stage: str, **changes: int) -> Trainer:
    """The same network with few channels: what is tested is the training, not the size."""
    return Trainer(replace(RECIPES[stage], warmup=1, **changes), torch.device("cpu"), 0, (16, 16, 32, 32))


def batches(stage: str, start: int = 0):
    if stage == "match":
        return iter(SceneBatches(PHOTOS, [], SceneSettings(size=64), batch=2, seed=0, start=start))
    return iter(CropBatches(PHOTOS, batch=2, size=32, seed=0, start=start))


@pytest.mark.parametrize(
    ("stage", "losses"), [("denoise", {"denoise"}), ("match", {"denoise", "match", "fine", "transfer"})]
)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(stage, losses, tmp_path):
    whole, first = trainer(stage), trainer(stage)
    data = batches(stage)
    one, two = next(data), next(data)
    assert set(whole.train_step(one)) == losses
    first.train_step(one)
    first.save(tmp_path)
    resumed = trainer(stage)
    resumed.resume(tmp_path)
    assert resumed.step == 1
    expected, found = whole.train_step(two), resumed.train_step(next(batches(stage, start=1)))
    assert found == pytest.approx(expected, rel=1e-3)
    for name, value in whole.average.items():
        torch.testing.assert_close(resumed.average[name], value, atol=1e-5, rtol=1e-3)


def test_the_next_stage_starts_from_the_last_weights(tmp_path):
    before = trainer("denoise")
    before.train_step(next(batches("denoise")))
    before.save(tmp_path)
    after = trainer("match")
    after.start_from(read_weights(tmp_path, "model"))
    for name, value in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], value)


def test_an_export_is_what_the_extractor_loads(tmp_path, monkeypatch):
    run = trainer("denoise")
    run.train_step(next(batches("denoise")))
    run.save(tmp_path)
    monkeypatch.setattr("sys.argv", ["export_compact", "--run", str(tmp_path), "--out", str(tmp_path / "model")])
    export_compact.main()
    extractor = build_extractor("compact", weights=tmp_path / "model", device="cpu")
    assert extractor(torch.rand(1, 3, 32, 64)).shape == (1, 16, 4, 8)


def test_the_learning_rate_warms_up_and_falls():
    recipe = replace(RECIPES["denoise"], warmup=1, steps=100)
    rates = [recipe.rate(step) for step in (0, 1, 50, 99)]
    assert rates[0] <= rates[1] > rates[2] > rates[3] > 0
