from __future__ import annotations

from pathlib import Path

import pytest
import torch

from propagate.errors import WeightsError
from propagate.features import build_extractor
from propagate.features.diffusion.aggregation import AggregationNetwork, load_aggregator
from propagate.weights.locating import locate
from propagate.weights.registry import MODELS
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY
from tests.places import PARITY_DATA

FOLDER = PARITY_DATA / "hyperfeatures_tiny_0"
TINY = FOLDER / "aggregation_network_sd_tiny.pt"


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 72, 104, generator=torch.Generator().manual_seed(0))


def build(**options):
    return build_extractor("hyperfeatures", **{"aggregator": TINY, "weights": SD_TINY, "device": "cpu"} | options)


def content(**changes) -> dict:
    """What the tiny file holds, with changes to its config."""
    found = torch.load(TINY, weights_only=True)
    return found | {"config": found["config"] | changes}


def save(found: dict, path: Path) -> Path:
    torch.save(found, path)
    return path


def test_grid_and_batch(images):
    extractor = build()
    assert (extractor.stride, extractor.channels, extractor.multiple) == (8, 32, 8)
    together = extractor(images)
    assert together.shape == (2, 32, 9, 13)
    for place in range(2):
        torch.testing.assert_close(extractor(images[place : place + 1])[0], together[place], rtol=1e-3, atol=1e-4)


def test_one_step_noises_once_per_saved_step(images):
    """Labels 9, 5, 0 of 10: the clean latents, and steps 4 and 9 of the inversion."""
    extractor = build()
    fed, latents = [], []
    extractor.model.unet.time_proj.register_forward_pre_hook(lambda _module, inputs: fed.append(inputs[0].tolist()))
    extractor.model.unet.conv_in.register_forward_pre_hook(lambda _module, inputs: latents.append(inputs[0]))
    extractor(images[:1])
    assert fed == [[-1.0], [300.0], [800.0]]
    clean = extractor.model.latents(images[:1])
    assert torch.equal(latents[0], clean)
    noise = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(0))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    for given, timestep in zip(latents[1:], (300, 800), strict=True):
        kept = float((1 - betas).cumprod(0)[timestep])
        torch.testing.assert_close(given, kept**0.5 * clean + (1 - kept) ** 0.5 * noise, rtol=1e-4, atol=1e-5)


def test_steps_in_any_order_and_twice(images, tmp_path):
    """The file's order of steps is that of the mixing weights, not that of the passes."""
    found = content(save_timestep=[0, 9, 9])
    weights = found["aggregation_network"]["mixing_weights"].reshape(3, 12)
    found["aggregation_network"]["mixing_weights"] = weights[[2, 0, 0]].flatten()
    twice = build(aggregator=save(found, tmp_path / "twice.pt"))(images)
    found = content(save_timestep=[9, 0])
    # a weight twice in the softmax is one that is larger by log 2
    found["aggregation_network"]["mixing_weights"] = torch.stack(
        [weights[0] + torch.tensor(2.0).log(), weights[2]]
    ).flatten()
    once = build(aggregator=save(found, tmp_path / "once.pt"))(images)
    torch.testing.assert_close(twice, once, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{"noising": "inversion"}, {"seed": 3}, {"prompt": "a dog"}])
def test_every_option_changes_the_features(images, options):
    plain, other = build()(images[:1]), build(**options)(images[:1])
    assert (other - plain).norm() / plain.norm() > 1e-3


def test_the_clean_step_alone_needs_no_noise(images, tmp_path):
    found = content(save_timestep=[0], num_timesteps=1)
    found["aggregation_network"]["mixing_weights"] = torch.zeros(12)
    path = save(found, tmp_path / "one_step.pt")
    plain = build(aggregator=path)(images[:1])
    for options in ({"seed": 3}, {"noising": "inversion"}):
        assert torch.equal(build(aggregator=path, **options)(images[:1]), plain)


def test_bfloat16_is_near(images):
    exact, rough = build()(images[:1]), build(dtype="bfloat16")(images[:1])
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.1


def test_equal_weights_of_equal_layers_are_one_layer():
    """The softmax mixes: two layers with one bottleneck and one map give what it gives alone."""
    torch.manual_seed(0)
    network = AggregationNetwork((8, 8), 16, 1, norm_groups=4)
    network.bottleneck_layers[1] = network.bottleneck_layers[0]
    features = torch.rand(1, 8, 5, 6)
    mixed = network.share(0, 0, features) + network.share(0, 1, features)
    torch.testing.assert_close(mixed, network.bottleneck_layers[0](features))


def test_the_number_of_groups_is_32_where_the_file_does_not_say():
    network = AggregationNetwork((320, 640), 384, 1)
    assert network.bottleneck_layers[0][0].conv1.norm.num_groups == 32
    assert network.bottleneck_layers[0][0].conv1.weight.shape == (96, 320, 1, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"save_timestep": [9, 5]}, "mixing_weights has the shape"),
        ({"save_timestep": [9, 5, 10]}, r"save_timestep \[9, 5, 10\] does not lie within 10 steps"),
        ({"projection_dim": 64}, "has the shape"),
        ({"num_norm_groups": 5}, "is not an aggregation network"),
    ],
)
def test_a_config_that_contradicts_the_weights(tmp_path, change, words):
    with pytest.raises(WeightsError, match=rf"changed\.pt.*{words}"):
        load_aggregator(save(content(**change), tmp_path / "changed.pt"))


@pytest.mark.parametrize("key", ["config", "aggregation_network"])
def test_a_file_of_something_else(tmp_path, key):
    found = content()
    del found[key]
    with pytest.raises(WeightsError, match=rf"other\.pt is not an aggregation network .*{key}"):
        load_aggregator(save(found, tmp_path / "other.pt"))


def test_a_weight_that_is_no_tensor(tmp_path):
    found = content()
    found["aggregation_network"]["mixing_weights"] = None
    with pytest.raises(WeightsError, match=r"other\.pt is not an aggregation network .*mixing_weights is no tensor"):
        load_aggregator(save(found, tmp_path / "other.pt"))


def test_a_damaged_file(tmp_path):
    (tmp_path / "cut.pt").write_bytes(TINY.read_bytes()[:50_000])
    with pytest.raises(WeightsError, match=r"cut\.pt is (damaged|a pickle)"):
        load_aggregator(tmp_path / "cut.pt")


def test_an_aggregator_of_another_model(tmp_path):
    with pytest.raises(WeightsError, match=r"for layers of 12, 12, 16, 24, 8 channels, the model's decoder has 48, 48"):
        build(aggregator=FOLDER / "aggregation_network.pt")
    for model_id, width in (("runwayml/stable-diffusion-v1-5", 768), ("stabilityai/stable-diffusion-2-1", 1024)):
        path = save(content(model_id=model_id), tmp_path / "variant.pt")
        with pytest.raises(
            WeightsError, match=rf"trained on {model_id}, whose prompts are {width} wide; this .* are 32"
        ):
            build(aggregator=path)


def test_models_can_be_named():
    with pytest.raises(WeightsError, match="hyperfeatures-sd21 is not on this machine"):
        build(aggregator="hyperfeatures-sd21")
    for name in ("hyperfeatures-one-step", "hyperfeatures", "hyperfeatures-sd21"):
        assert not MODELS[name].is_folder
        with pytest.raises(WeightsError, match="g-luo/diffusion-hyperfeatures"):
            locate(name)
