from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from propagate.errors import UsageError, WeightsError
from propagate.features import FeatureExtractor, build_extractor
from propagate.settings import load_settings
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    plain = load_file(SD_TINY / "unet" / "diffusion_pytorch_model.safetensors")
    return {name: value.float() * 0.9 for name, value in plain.items()}


@pytest.fixture
def weights(tensors, tmp_path):
    save_file(tensors, tmp_path / "cleandift.safetensors")
    return tmp_path / "cleandift.safetensors"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 72, 104, generator=torch.Generator().manual_seed(0))


def build(weights, **options) -> FeatureExtractor:
    return build_extractor("cleandift", **{"weights": str(weights), "base": str(SD_TINY), "device": "cpu"} | options)


@pytest.mark.parametrize(("block", "channels", "stride"), [(0, 48, 32), (1, 48, 16), (2, 32, 8), (3, 16, 8)])
def test_blocks(weights, images, block, channels, stride):
    extractor = build(weights, up_ft_index=block)
    assert (extractor.channels, extractor.stride, extractor.multiple) == (channels, stride, 8)
    assert extractor(images).shape == (2, channels, -(-72 // stride), -(-104 // stride))


@pytest.mark.parametrize("latents", ["mode", "sample"])
def test_a_frame_depends_neither_on_its_batch_nor_on_its_index(weights, images, latents):
    extractor = build(weights, latents=latents)
    together = extractor(images, indices=[4, 7])
    assert together.dtype == torch.float32
    assert torch.equal(extractor(images, indices=[0, 1]), together)
    for place in range(2):
        torch.testing.assert_close(extractor(images[place : place + 1])[0], together[place], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"timestep": 260.5}, {"prompt": "a photo of a dog"}, {"latents": "sample"}])
def test_every_option_changes_the_features(weights, images, options):
    plain, other = build(weights)(images), build(weights, **options)(images)
    assert (other - plain).norm() / plain.norm() > 1e-3


def test_one_pass_without_noise(weights, images):
    extractor = build(weights, up_ft_index=1)
    calls = []
    extractor.model.vae.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    for place, block in enumerate(extractor.model.unet.up_blocks):
        block.register_forward_pre_hook(lambda *_, place=place: calls.append(place))
    extractor(images[:1])
    assert calls == ["encoder", 0, 1]


def test_the_base_needs_no_unet_weights(weights, images, tmp_path):
    base = shutil.copytree(SD_TINY, tmp_path / "base", copy_function=shutil.copyfile)
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert torch.equal(build(weights, base=str(base))(images), build(weights)(images))


def test_the_timestep_is_exact_in_half_precision(weights, images):
    """In bfloat16 itself 261 would become 260, as in the notebooks."""
    rough = build(weights, up_ft_index=0, dtype="bfloat16")
    told = []
    rough.model.unet.time_proj.register_forward_pre_hook(lambda _module, inputs: told.append(inputs[0]))
    rough(images[:1])
    assert told[0].tolist() == [261.0]


@pytest.fixture
def whole_training(tensors, tmp_path):
    """A file of the layout of `cleandift_sd21_full.safetensors`: its names, with the timestep in between two steps."""
    parts = {
        "unet_feature_extractor_cleandift": tensors,
        "unet_feature_extractor_base": {name: value * 2 for name, value in tensors.items()},
        "ae.ae": {"encoder.conv_in.weight": torch.ones(3)},
        "adapters.us6": {"weight": torch.ones(3)},
        "mapping": {"weight": torch.ones(3)},
        "time_emb": {"weight": torch.ones(3)},
        "time_in_proj": {"weight": torch.ones(3)},
    }
    named = {f"{part}.{name}": value for part, inside in parts.items() for name, value in inside.items()}
    save_file({**named, "timestep": torch.tensor(260.3125)}, tmp_path / "full.safetensors")
    return tmp_path / "full.safetensors"


def test_the_file_of_the_whole_training_gives_its_fine_tuned_unet_and_timestep(weights, images, whole_training):
    full = build(whole_training)
    assert full.timestep == 260.3125
    assert build(weights).timestep == 261.0
    assert torch.equal(full(images), build(weights, timestep=260.3125)(images))
    assert torch.equal(build(whole_training, timestep=261.0)(images), build(weights)(images))


def test_a_whole_training_of_another_base_is_refused(tensors, tmp_path):
    wider = {f"unet_feature_extractor_cleandift.{name}": value for name, value in tensors.items()}
    wider["unet_feature_extractor_cleandift.conv_in.bias"] = torch.zeros(9)
    save_file(wider, tmp_path / "full.safetensors")
    with pytest.raises(WeightsError, match=r"full\.safetensors does not hold .*conv_in\.bias"):
        build(tmp_path / "full.safetensors")


@pytest.mark.parametrize(
    "change", [{"conv_in.bias": None}, {"extra": torch.zeros(1)}, {"conv_in.bias": torch.zeros(9)}]
)
def test_weights_have_to_fit_exactly(tensors, tmp_path, change):
    path = tmp_path / "other.safetensors"
    save_file({name: value for name, value in {**tensors, **change}.items() if value is not None}, path)
    with pytest.raises(WeightsError, match=rf"other\.safetensors does not hold .*{next(iter(change))}"):
        build(path)


def test_truncated_weights_are_named(weights):
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"cleandift\.safetensors is damaged"):
        build(weights)


def test_a_folder_is_not_a_state_dict():
    with pytest.raises(WeightsError, match="is not a readable weight file"):
        build(SD_TINY)


def test_an_unknown_block_lists_the_blocks(weights):
    with pytest.raises(UsageError, match="0: stride 32, 48 channels; 1: stride 16"):
        build(weights, up_ft_index=9)


def test_preset(weights):
    settings = load_settings("cleandift_davis", [f"features.weights={weights}", f"features.base={SD_TINY}"])
    extractor = build_extractor(settings.features.name, **settings.features.options, device="cpu")
    assert (extractor.timestep, extractor.stride, extractor.multiple) == (261.0, 8, 32)
