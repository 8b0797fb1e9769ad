"""LDM_correspondences' own numbers: attention, six steps of learning, seven views of another picture, the decision."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from propagate.features.learned_prompts.cross_attention import AttentionNetwork
from propagate.features.learned_prompts.learning import (
    FrameView,
    View,
    at_size,
    learn_embedding,
    one_map,
    read_attention,
)
from propagate.features.learned_prompts.prompt_attention import PUBLISHED_LAYERS
from propagate.features.learned_prompts.targets import Crop, PointTarget, corners, random_crop, whole
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from tests.places import PARITY_DATA

DATA = PARITY_DATA
FOLDER = DATA / "prompt_attention_tiny_0"
SD_TINY = DATA / "sd_tiny_0" / "pipeline"
SIZE, SIGMA = (128, 128), 27.97853316663864 / 4
# as the published script sets them: a rate of its search, and 93.165 % of a side
RATE, PORTION = 0.0023755632081200314, 0.9316549
LEARNING, READING = 140, 40


@cache
def golden() -> dict[str, torch.Tensor]:
    with np.load(FOLDER / "run.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def picture(name: str) -> torch.Tensor:
    return golden()[f"{name}_u8"].permute(2, 0, 1)[None].float() / 255


def crops(name: str) -> list[Crop]:
    return [Crop(*numbers) for numbers in golden()[f"{name}_crops_y_h_x_w"].tolist()]


def target() -> PointTarget:
    x, y = (golden()["point_xy"] * 128).tolist()
    return PointTarget((x, y), SIGMA)


@pytest.fixture(scope="module", params=[False, True], ids=["kept", "checkpointed"])
def network(request, tmp_path_factory) -> AttentionNetwork:
    """The U-Net in the folder, with the VAE and the schedule of the other tiny pipeline."""
    return tiny_network(tmp_path_factory.mktemp("pipeline"), PUBLISHED_LAYERS, checkpointing=request.param)


def tiny_network(folder: Path, layers, *, checkpointing: bool = False) -> AttentionNetwork:
    for place, name in ((FOLDER, "unet"), (SD_TINY, "vae"), (SD_TINY, "scheduler")):
        (folder / name).symlink_to(place / name)
    files = open_pipeline(folder)
    torch.testing.assert_close(files.alphas_cumprod, golden()["alphas_cumprod"], rtol=1e-6, atol=0)
    return AttentionNetwork(files, layers, dtype=torch.float32, device=torch.device("cpu"), checkpointing=checkpointing)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """1e-4 relative, by the largest value."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_the_timesteps_are_those_of_the_schedule():
    assert golden()["timesteps"][[-8, -3]].tolist() == [LEARNING, READING]


def test_latents_of_crops_and_their_noise(network):
    for crop, noise, latents, noisy in zip(
        crops("opt"), golden()["opt_noise"], golden()["opt_latents"], golden()["opt_noisy"], strict=True
    ):
        found = network.latents(crop.enlarged(picture("source")))
        assert_close(found[0], latents)
        assert_close(network.noised(found, noise[None], LEARNING)[0], noisy)


@torch.no_grad()
def test_attention_of_every_layer(tmp_path):
    """The decoder's layers; those of the encoder come before them in the reference's count."""
    layers = [(block, layer) for block in (1, 2) for layer in range(3)]
    network = tiny_network(tmp_path, layers)
    noisy = network.noised(network.latents(picture("target")), golden()["opt_noise"][:1], LEARNING)
    assert_close(noisy, golden()["single_noisy"])
    for number, found in enumerate(network.maps(noisy, LEARNING, golden()["single_context"]), start=5):
        assert_close(found[0], golden()[f"single_layer{number}_heads4to7_token1"])


@torch.no_grad()
def test_layers_at_one_size(network):
    maps = network.maps(golden()["single_noisy"], LEARNING, golden()["single_context"])
    assert_close(at_size(maps, (32, 32))[0], golden()["single_up_layers5678"].mean(1))


def test_target():
    found = target().in_crop(crops("opt")[0], SIZE)[::4, ::4]
    assert_close(found, golden()["opt_target_step0"])


@torch.no_grad()
def test_attention_of_the_first_step(network):
    noisy, start = golden()["opt_noisy"][:1], golden()["context_initial"]
    found = at_size(network.maps(noisy, LEARNING, start), SIZE)[0]
    assert_close(found[:, ::4, ::4], golden()["opt_maps_step0"])


def learned(network: AttentionNetwork, steps: int):
    views = [View(crop, noise[None]) for crop, noise in zip(crops("opt"), golden()["opt_noise"], strict=True)]
    return learn_embedding(
        network,
        picture("source"),
        target(),
        golden()["context_initial"],
        views[:steps],
        timestep=LEARNING,
        learning_rate=RATE,
    )


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_learning(network, steps):
    found = learned(network, steps)
    expected = [*golden()["context_steps"], golden()["context_final"][0]][steps]
    np.testing.assert_allclose(found.losses, golden()["opt_losses"][:steps], rtol=1e-5)
    difference = (found.embedding[0] - expected).abs()
    # a step of Adam has the size of its rate also where the gradient vanishes, and its sign is then rounding's
    assert difference.max() < 1e-4 or difference.mean() < 1e-5


def test_reading_and_decision(network):
    views = [FrameView(crop, noise[None]) for crop, noise in zip(crops("inf"), golden()["inf_noise"], strict=True)]
    with torch.no_grad():
        maps = read_attention(
            network, picture("target"), golden()["context_final"], views, timestep=READING, prompts_per_pass=1
        )
    assert_close(maps[0, :, ::2, ::2], golden()["inf_maps"])
    np.testing.assert_array_equal(peak(one_map(maps[0])), golden()["inf_argmax_xy"])
    for layer, expected in zip(maps[0], golden()["inf_argmax_per_layer_xy"], strict=True):
        np.testing.assert_array_equal(peak(layer), expected)
    # the one map is the published mean of the layers' distributions, on another scale
    published = maps[0].flatten(1).softmax(1).mean(0)
    assert_close(one_map(maps[0]).flatten().softmax(0), published)


def peak(attention: torch.Tensor) -> list[float]:
    place = int(attention.argmax())
    return [place % 128 + 0.5, place // 128 + 0.5]


def test_crops_are_where_the_reference_has_them():
    """The corners' are determined; those of learning are among those that our rule draws."""
    generator = torch.Generator().manual_seed(0)
    assert [random_crop(SIZE, corner, PORTION, generator) for corner in corners(SIZE)] == crops("inf")[:4]
    drawn = {random_crop(SIZE, target().center, PORTION, generator) for _ in range(2000)}
    assert set(crops("opt")) <= drawn
    assert len(drawn) == 100  # 10 x 10 places: the point is far enough inside in all of them
    assert F.interpolate(picture("source"), SIZE).shape == whole(SIZE).of(picture("source")).shape
