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
from propagate.features.compact import UNET_CONFIG, fold_upsampler, pooled_block
from propagate.features.diffusion import run_until

SHIPPED = Path(str(resources.files("propagate"))) / "models" / "compact"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_folding_the_upsampler_is_exact():
    convolution = torch.nn.Conv2d(5, 7, 3, padding=1)
    hidden = torch.randn(2, 5, 6, 9)
    fine = convolution(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
    folded = F.conv2d(hidden, fold_upsampler(convolution.weight), convolution.bias, padding=1)
    torch.testing.assert_close(folded, F.avg_pool2d(fine, 2), atol=1e-5, rtol=0)


def test_pooled_block_is_the_plain_tap_averaged():
    torch.manual_seed(0)
    unet = UNet2DModel(**UNET_CONFIG).eval()
    noisy, timesteps = torch.randn(1, 48, 16, 24), torch.tensor([51])
    with torch.no_grad():
        plain = F.avg_pool2d(run_until(unet.up_blocks[2], lambda: unet(noisy, timesteps)), 2)
        torch.testing.assert_close(pooled_block(unet, 2, noisy, timesteps), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("block", "channels", "stride"), [(0, 256, 16), (1, 192, 8), (2, 128, 8), (3, 64, 8)])
def test_blocks(images, block, channels, stride):
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
    assert F.mse_loss(predicted, velocity) < 0.5 * velocity.square().mean()


def test_missing_weights_say_where_and_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match=r"weights are not in .*nowhere.*features\.weights"):
        build_extractor("compact", weights=tmp_path / "nowhere", device="cpu")


def test_weights_of_another_network_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"unet": UNET_CONFIG}), encoding="utf-8")
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="does not hold the compact model"):
        build_extractor("compact", weights=tmp_path, device="cpu")


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"unet": UNET_CONFIG}), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="does not hold the compact model"):
        build_extractor("compact", weights=tmp_path, device="cpu")


def test_draws_can_share_a_pass():
    images = torch.rand(2, 3, 64, 96)
    options = {"ensemble_size": 3, "noise": "antithetic", "device": "cpu"}
    one, together = build_extractor("compact", **options), build_extractor("compact", **options, draws_per_pass=2)
    batches: list[int] = []
    together._unet.conv_in.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    torch.testing.assert_close(together(images), one(images), rtol=1e-4, atol=1e-4)
    assert batches == [4, 2]
