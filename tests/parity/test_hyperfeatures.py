"""Diffusion Hyperfeatures' own numbers: AggregationNetwork, and DiffusionExtractor on a tiny pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from propagate.features import build_extractor
from propagate.features.diffusion.aggregation import load_aggregator
from tests.places import PARITY_DATA

DATA = PARITY_DATA
PIPELINE = DATA / "sd_tiny_0" / "pipeline"
FOLDER = DATA / "hyperfeatures_tiny_0"
IMAGES = torch.zeros(1, 3, 128, 128)


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2."""
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def from_stored_latents(aggregator: Path, **options):
    """An extractor that starts from the latents that the reference sampled."""
    extractor = build_extractor("hyperfeatures", aggregator=aggregator, weights=PIPELINE, device="cpu", **options)
    latents = arrays("extractor")["latents_scaled"]
    extractor.model.latents = lambda images: latents.expand(len(images), -1, -1, -1)
    return extractor


def collected_maps(extractor) -> torch.Tensor:
    """Each layer's map at each saved step, as they reach the aggregation network: (steps, all channels, h, w)."""
    maps: dict[tuple[int, int], torch.Tensor] = {}

    def share(step: int, layer: int, features: torch.Tensor) -> torch.Tensor:
        maps[step, layer] = features
        return torch.zeros(())

    extractor.aggregator.network.share = share
    extractor(IMAGES)
    steps, layers = (1 + max(place) for place in zip(*maps, strict=True))
    return torch.cat([torch.cat([maps[step, layer] for layer in range(layers)], 1) for step in range(steps)])


def fed_timesteps(extractor) -> list[float]:
    fed: list[float] = []
    extractor.model.unet.time_proj.register_forward_pre_hook(lambda _module, inputs: fed.extend(inputs[0].tolist()))
    return fed


def test_aggregation():
    golden = arrays("aggregation")
    aggregator = load_aggregator(FOLDER / "aggregation_network.pt")
    dims = golden["dims"].tolist()
    assert aggregator.channels == tuple(dims)
    assert aggregator.labels == tuple(golden["save_timestep"].tolist())
    assert distance(aggregator.network.mixing_weights.softmax(0), golden["mixing_softmax"]) < 1e-5
    maps = golden["input"].split(dims * 2, 1)
    shares = [aggregator.network.share(k // len(dims), k % len(dims), part) for k, part in enumerate(maps)]
    assert distance(torch.stack(shares).sum(0), golden["output"]) < 1e-5
    for layer in (0, 4):
        alone = aggregator.network.bottleneck_layers[layer](maps[layer])
        assert distance(alone, golden[f"first_timestep_block{layer}"]) < 1e-5


def test_inversion_features():
    golden = arrays("extractor")
    extractor = from_stored_latents(FOLDER / "aggregation_network_sd_tiny.pt", noising="inversion")
    assert extractor.aggregator.channels == tuple(golden["channels"].tolist())
    fed = fed_timesteps(extractor)
    found = collected_maps(extractor)
    assert fed == golden["inversion10_timesteps_fed"].tolist()
    # of the three steps the last, at the end of the inversion, is kept in the repository
    assert distance(found[2:], golden["inversion10_feats"]) < 1e-4


def test_inversion_hyperfeatures():
    extractor = from_stored_latents(FOLDER / "aggregation_network_sd_tiny.pt", noising="inversion")
    assert distance(extractor(IMAGES)[0], arrays("extractor")["inversion10_hyperfeatures"]) < 1e-4


@pytest.mark.parametrize("noising", ["one_step", "inversion"])
def test_one_step_features(tmp_path, noising):
    """The one-step network: one pass over the clean latents, told timestep -1."""
    golden = arrays("extractor")
    content = torch.load(FOLDER / "aggregation_network_sd_tiny.pt", weights_only=True)
    content["config"] |= {"save_timestep": [0], "num_timesteps": 1}
    content["aggregation_network"]["mixing_weights"] = torch.zeros(12)
    torch.save(content, tmp_path / "one_step.pt")
    extractor = from_stored_latents(tmp_path / "one_step.pt", noising=noising)
    fed = fed_timesteps(extractor)
    found = collected_maps(extractor)
    assert fed == golden["onestep_timesteps_fed"].tolist()
    assert distance(found, golden["onestep_feats"]) < 1e-4


def test_the_prompt_is_the_references():
    golden = arrays("extractor")["prompt_embeds"]
    extractor = from_stored_latents(FOLDER / "aggregation_network_sd_tiny.pt")
    assert distance(extractor.model.condition, golden) < 1e-4
