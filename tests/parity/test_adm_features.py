"""DIFT's ADM featurizer with guided-diffusion, run on a tiny model (`data/adm_tiny_0`, made by the published code)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from propagate.features.adm.adm import AdmDiffusion
from propagate.features.adm.checkpoint import convert_checkpoint, open_checkpoint
from propagate.features.diffusion.core import linear_alphas_cumprod
from tests.features.adm.guided_diffusion import Options, activations
from tests.places import PARITY_DATA

DATA = PARITY_DATA / "adm_tiny_0"
CHECKPOINT = DATA / "adm_tiny_uncond.pt"
NOISE_SEED = 31  # torch.randn with this seed gives the stored noise; a test sees to it
TOLERANCE = 1e-4  # relative L2; float32 noise itself is 1e-5 here


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(DATA / "features.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def image(golden) -> torch.Tensor:
    return golden["image_u8"].permute(2, 0, 1)[None].float() / 255


def names() -> list[str]:
    with np.load(DATA / "features.npz") as arrays:
        return sorted(name for name in arrays if name.startswith("ft_"))


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


def build(weights: Path, name: str) -> AdmDiffusion:
    timestep, ensemble_size, block = (int(number) for number in re.findall(r"\d+", name))
    return AdmDiffusion(
        weights=weights,
        timestep=timestep,
        ensemble_size=ensemble_size,
        up_ft_index=block,
        seed=NOISE_SEED,
        head_channels=16,
        device="cpu",
    )


def test_all_blocks_timesteps_and_ensembles_are_in_the_file():
    assert len(names()) == 2 * 2 * 8 + 4 + 1


@pytest.mark.parametrize("name", names())
def test_features(golden, image, name):
    extractor = build(CHECKPOINT, name)
    assert difference(extractor(image), golden[name]) < TOLERANCE
    _, channels, height, _ = golden[name].shape
    assert (extractor.channels, extractor.stride) == (channels, 24 // height)
    assert extractor.multiple == 8


@pytest.mark.parametrize("name", ["ft_t51_e2_b5", "ft_t261_e1_b11"])
def test_features_of_the_converted_folder(golden, image, name, tmp_path):
    convert_checkpoint(CHECKPOINT, tmp_path / "adm", head_channels=16)
    assert difference(build(tmp_path / "adm", name)(image), golden[name]) < TOLERANCE


def test_the_noise_is_the_stored_one(golden):
    drawn = torch.randn((2, 3, 24, 40), generator=torch.Generator().manual_seed(NOISE_SEED))
    torch.testing.assert_close(drawn, golden["noise"])


def test_the_schedule(golden):
    kept = linear_alphas_cumprod().double()
    torch.testing.assert_close(kept.sqrt(), golden["sqrt_alphas_cumprod"], rtol=1e-6, atol=0)
    # 1 - kept of a float32 close to 1 has few digits left at the first timesteps
    torch.testing.assert_close((1 - kept).sqrt(), golden["sqrt_one_minus_alphas_cumprod"], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("timestep", [51, 261])
def test_timestep_embedding(golden, timestep):
    unet, tensors = open_checkpoint(CHECKPOINT, 16)
    sinusoid = unet.time_proj(torch.tensor([timestep]))
    torch.testing.assert_close(sinusoid, golden[f"timestep_embedding_t{timestep}"], atol=1e-5, rtol=0)
    unet.load_state_dict(tensors, assign=True)
    with torch.no_grad():
        embedded = unet.float().time_embedding(sinusoid)
    torch.testing.assert_close(embedded, golden[f"time_embed_t{timestep}"], atol=1e-4, rtol=1e-4)


def test_attention_is_where_it_was(golden):
    unet, _ = open_checkpoint(CHECKPOINT, 16)
    attends = [hasattr(stage, "attentions") for stage in unet.up_blocks for _ in stage.resnets]
    assert [block for block, has in enumerate(attends) if has] == golden["attention_ids"].tolist()


def test_the_slow_twin_of_the_other_tests_is_the_published_network(golden):
    made_with = json.loads((DATA / "options.json").read_text(encoding="utf-8"))["create_model"]
    options = Options(
        base=made_with["num_channels"],
        multipliers=tuple(int(number) for number in made_with["channel_mult"].split(",")),
        res_blocks=made_with["num_res_blocks"],
        attention=tuple(made_with["image_size"] // int(size) for size in made_with["attention_resolutions"].split(",")),
        head_channels=made_with["num_head_channels"],
    )
    state = torch.load(CHECKPOINT, weights_only=True)
    for block, found in enumerate(activations(state, options, golden["noisy_t51"], 51)[:8]):
        assert difference(found, golden[f"ft_t51_e1_b{block}"]) < TOLERANCE
