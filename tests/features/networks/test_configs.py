from __future__ import annotations

import re

import pytest
import torch
from diffusers import UNet2DModel

from propagate.errors import UsageError, WeightsError
from propagate.features.networks.configs import (
    AdmConfig,
    ClipTextConfig,
    ScheduleConfig,
    UNetConfig,
    VitConfig,
    building,
    checked_config,
)
from propagate.features.stable_diffusion.single_file import read_schedule

ADM = {
    "_class_name": "UNet2DModel",
    "block_out_channels": [32, 32],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "time_embedding_dim": 128,
}


def test_only_known_keys_pass():
    foreign = {"_attn_implementation": "owner/repo", "auto_map": {"AutoModel": "x--y"}, "quantization_config": {"a": 1}}
    found = checked_config(VitConfig, {"hidden_size": 12, **foreign, "num_attention_heads": 3}, "here")
    assert found == {"hidden_size": 12, "num_attention_heads": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers_per_block": 2_000_000}, "layers_per_block = 2000000"),
        ({"act_fn": 32}, "act_fn = 32"),
        ({"act_fn": "os.system"}, "act_fn = 'os.system'"),
        ({"block_out_channels": [32] * 9}, "block_out_channels"),
        ({"block_out_channels": [32, 0]}, "block_out_channels"),
        ({"block_out_channels": 32}, "block_out_channels = 32"),
        ({"norm_num_groups": True}, "norm_num_groups = True"),
        ({"norm_eps": 0}, "norm_eps = 0"),
        ({"time_embedding_dim": None}, "time_embedding_dim = None"),
        ({"in_channels": 12}, "in_channels = 12"),
        ({"mid_block_scale_factor": 1_000_000}, "mid_block_scale_factor = 1000000 is not supported"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep' is not supported"),
        ({"_class_name": ["x"]}, "not of a UNet2DModel"),
    ],
)
def test_values_that_do_not_fit_are_named_with_their_file(change, words):
    with pytest.raises(WeightsError, match=f"^folder/config.json.*{re.escape(words)}"):
        checked_config(AdmConfig, {**ADM, **change}, "folder/config.json", UNet2DModel)


@pytest.mark.parametrize("values", [[], None, "text", 3])
def test_what_is_no_object_is_refused(values):
    with pytest.raises(WeightsError, match="is not a JSON object"):
        checked_config(UNetConfig, values, "here")


@pytest.mark.parametrize(
    "change",
    [
        '"beta_schedule": {"": {}}',
        '"beta_schedule": "sigmoid"',
        '"beta_start": true',
        '"beta_end": 1e308',
        '"trained_betas": "0.8.0"',
        '"trained_betas": [0.1, 2]',
        '"num_train_timesteps": 1000000000000',
        '"num_train_timesteps": 0',
    ],
)
def test_a_scheduler_that_makes_no_noise_is_refused(tmp_path, change):
    path = tmp_path / "scheduler_config.json"
    path.write_text(f'{{"_class_name": "PNDMScheduler", "prediction_type": [], {change}}}', encoding="utf-8")
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        read_schedule(path)


def test_a_scheduler_of_any_class_gives_its_noise(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text('{"_class_name": "PNDMScheduler", "num_train_timesteps": 7, "skip_prk_steps": true}', "utf-8")
    kept = read_schedule(path)
    assert kept.shape == (7,)
    assert bool((kept.diff() < 0).all())
    assert checked_config(ScheduleConfig, {"beta_start": 0.1}, "here") == {"beta_start": 0.1}


def test_what_a_library_raises_is_named_with_its_type():
    words = r"here does not make a network \(ZeroDivisionError: .*by zero\)"
    with pytest.raises(WeightsError, match=words), building("here", "network"):
        _ = 1 // 0


@pytest.mark.parametrize("error", [UsageError("other"), MemoryError(), KeyboardInterrupt(), torch.OutOfMemoryError()])
def test_what_has_another_meaning_passes(error):
    with pytest.raises(type(error)), building("here", "network"):
        raise error


def test_heads_have_to_divide_the_width():
    with pytest.raises(WeightsError, match="here: num_attention_heads = 5 does not divide hidden_size = 12"):
        checked_config(ClipTextConfig, {"hidden_size": 12, "num_attention_heads": 5}, "here")
