from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from propagate.errors import WeightsError
from propagate.features import build_extractor
from propagate.features.compact.compact import UNET_CONFIG

SHIPPED = Path(str(resources.files("propagate"))) / "models" / "compact"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("block", "stride"), [(0, 16), (1, 8), (2, 8), (3, 8)])
def test_blocks(images, block, stride):
    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    channels = config["unet"]["block_out_channels"][-1 - block]
    extractor = build_extractor("compact", block=block, device="cpu")
    assert (extractor.channels, extractor.stride) == (channels, stride)
    assert extractor(images).shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    "options", [{"timestep": 261}, {"seed": 1}, {"ensemble_size": 2}, {"noise": "antithetic", "ensemble_size": 2}]
)
def test_every_option_changes_the_features(images, options):
    plain = build_extractor("compact", device="cpu")(images)
    assert (build_extractor("compact", device="cpu", **options)(images) - plain).abs().max() > 1e-2


def test_fresh_noise_depends_on_the_frames_index_alone(images):
    extractor = build_extractor("compact", noise="fresh", device="cpu")
    assert torch.equal(extractor(images, indices=[3]), extractor(images, indices=[3]))
    assert not torch.equal(extractor(images, indices=[3]), extractor(images, indices=[4]))


def test_bfloat16_stays_close(images):
    exact = build_extractor("compact", device="cpu")(images)
    rough = build_extractor("compact", dtype="bfloat16", device="cpu")(images)
    assert F.cosine_similarity(exact, rough, dim=1).min() > 0.99


def test_a_size_that_does_not_fit_is_named():
    extractor = build_extractor("compact", device="cpu")
    with pytest.raises(ValueError, match=r"multiples of 32, not \(64, 90\)"):
        extractor(torch.rand(1, 3, 64, 90))


def test_the_shipped_model_is_small_and_still_denoises():
    assert (SHIPPED / "model.safetensors").stat().st_size < 30e6
    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    unet = UNet2DModel(**config["unet"])
    unet.load_state_dict({name: value.float() for name, value in load_file(SHIPPED / "model.safetensors").items()})
    # a smooth picture, noised: the velocity must be told better than by the best constant, 0
    ramp = torch.linspace(-0.8, 0.8, 64)
    picture = (ramp.view(1, 1, 64, 1) + ramp.view(1, 1, 1, 64)).expand(1, 3, 64, 64) / 2
    clean = F.pixel_unshuffle(picture, 4)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    kept = 0.4924  # t = 261
    noisy = kept**0.5 * clean + (1 - kept) ** 0.5 * noise
    velocity = kept**0.5 * noise - (1 - kept) ** 0.5 * clean
    with torch.no_grad():
        predicted = unet.eval()(noisy, 261).sample
    assert F.mse_loss(predicted, velocity) < 0.6 * velocity.square().mean()


def test_missing_weights_say_where_and_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match=r"weights are not in .*nowhere.*features\.weights"):
        build_extractor("compact", weights=tmp_path / "nowhere", device="cpu")


def test_weights_of_another_network_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"unet": UNET_CONFIG}), encoding="utf-8")
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="does not hold the weights of its config"):
        build_extractor("compact", weights=tmp_path, device="cpu")


def test_a_network_of_another_kind_is_refused(tmp_path):
    config = {"unet": {**UNET_CONFIG, "add_attention": True}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="another network"):
        build_extractor("compact", weights=tmp_path, device="cpu")


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"unet": UNET_CONFIG}), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="is damaged or not a weight file"):
        build_extractor("compact", weights=tmp_path, device="cpu")


def test_draws_can_share_a_pass():
    images = torch.rand(2, 3, 64, 96)
    options = {"ensemble_size": 3, "noise": "antithetic", "device": "cpu"}
    one, together = build_extractor("compact", **options), build_extractor("compact", **options, draws_per_pass=2)
    batches: list[int] = []
    together.networks[0].start.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    torch.testing.assert_close(together(images), one(images), rtol=1e-4, atol=1e-4)
    assert sorted(batches) == [1, 1, 2, 2]  # of each picture two draws and one


def test_features_have_the_same_bits_whatever_the_threads_and_the_batch():
    images, before = torch.rand(3, 3, 160, 256), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            extractor = build_extractor("compact", device="cpu", dtype="float32", noise="fresh")
            found += [extractor(images), torch.cat([extractor(images[i : i + 1], [i]) for i in range(3)])]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(features, found[0]) for features in found)
