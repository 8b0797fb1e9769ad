from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from propagate.errors import UsageError
from propagate.features import build_extractor
from propagate.features.anchoring import anchored
from propagate.settings import load_settings
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 72, 104, generator=torch.Generator().manual_seed(0))


def build(**options):
    return build_extractor("sd_layers", **{"weights": SD_TINY, "device": "cpu"} | options)


@pytest.mark.parametrize(
    ("layers", "channels", "stride"),
    [
        ([[2, 1], [1, 1], [0, 1]], 128, 16),
        ([[0, 0]], 48, 64),
        ([[3, 1], [2, 2]], 48, 8),
    ],
)
def test_layers(images, layers, channels, stride):
    extractor = build(layers=layers, layer_pca=None)
    assert (extractor.channels, extractor.stride, extractor.multiple) == (channels, stride, 8)
    assert extractor(images).shape == (2, channels, -(-72 // stride), -(-104 // stride))


def test_a_layer_at_the_end_of_a_block_without_upsampler_is_that_block(images):
    """The last block has no upsampler: its last layer is what dift_sd takes, on the same noisy latents."""
    here = build(layers=[[3, 2]], layer_pca=None, timestep=51, noise_side=None, seed=4)(images)
    there = build_extractor(
        "dift_sd", weights=SD_TINY, up_ft_index=3, ensemble_size=1, timestep=51, seed=4, device="cpu"
    )(images)
    torch.testing.assert_close(here, there)


def test_the_order_of_layers_does_not_matter_and_their_weights_follow_them(images):
    one = build(layers=[[2, 1], [1, 1]], layer_weights=[3, 0.5], layer_pca=None)(images)
    other = build(layers=[[1, 1], [2, 1]], layer_weights=[0.5, 3], layer_pca=None)(images)
    plain = build(layers=[[1, 1], [2, 1]], layer_pca=None)(images)
    assert torch.equal(one, other)
    torch.testing.assert_close(one, torch.cat([plain[:, :32] * 3, plain[:, 32:] * 0.5], 1))


def test_pca_is_of_the_anchor_alone(images):
    extractor = build(layer_pca=6)
    assert extractor.channels == 18
    fitted = anchored(extractor, images[:1])
    both = fitted(images)
    torch.testing.assert_close(fitted(images[1:]), both[1:], rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="has not been fitted"):
        extractor(images)
    assert not torch.allclose(anchored(extractor, images)(images), both, atol=1e-3)


def test_components_that_a_small_grid_does_not_have_are_zero(images):
    """Cells of 64 pixels over 72x104 are 2x2: three components."""
    found = anchored(build(layers=[[0, 1]], layer_pca=6), images[:1])(images)
    assert found.shape == (2, 6, 2, 2)
    assert found[:, 3:].abs().max() == 0
    assert (found[:, :3].abs().amax((0, 2, 3)) > 1e-3).all()


def test_more_components_than_channels_are_all_channels(images):
    assert build().channels == 128
    assert anchored(build(), images[:1])(images).shape == (2, 128, 5, 7)


def test_the_noise_is_one_picture_resized(images):
    extractor = build(noise_side=64, seed=42)
    published = torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(42))
    assert torch.equal(extractor.noise((64, 64)), published)
    assert torch.equal(extractor.noise((9, 13)), F.interpolate(published, (9, 13), mode="bicubic"))
    here = torch.randn((1, 4, 9, 13), generator=torch.Generator().manual_seed(42))
    assert torch.equal(build(noise_side=None).noise((9, 13)), here)


def test_a_window_is_the_picture_alone():
    """Windows that do not overlap are the pictures they cut out; the overlap is the mean of both."""
    images = torch.rand(1, 3, 64, 192, generator=torch.Generator().manual_seed(2))
    extractor, plain = build(windows=128, layer_pca=None), build(layer_pca=None)
    assert extractor.multiple == 64
    found = extractor.layers(images)
    for layer, left, right in zip(found, plain.layers(images[..., :128]), plain.layers(images[..., 64:]), strict=True):
        half = left.shape[-1] // 2
        torch.testing.assert_close(layer[..., :half], left[..., :half])
        torch.testing.assert_close(layer[..., half : 2 * half], (left[..., half:] + right[..., :half]) / 2)
        torch.testing.assert_close(layer[..., 2 * half :], right[..., half:])
    assert torch.equal(build(windows=256, layer_pca=None)(images), plain(images))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": [[4, 0]]}, "features.layers: there is no up block 4. There are 0 to 3"),
        ({"layers": [[1, 3]]}, "features.layers: up block 1 has no layer 3. It has layers 0 to 2"),
        ({"layers": []}, "features.layers = []"),
        ({"layer_weights": [1, 2]}, "features.layer_weights: 2 weights for 3 layers"),
        ({"timestep": 1000}, "features.timestep = 1000: the model's noise schedule has 1000 steps"),
        ({"windows": 100}, "features.windows = 100"),
        ({"windows": 128, "multiple": 32}, "features.multiple = 32: with windows it has to be one of 64"),
        ({"multiple": 12}, "features.multiple = 12"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(UsageError) as error:
        build(**options)
    assert words in str(error.value)


def test_sides_have_to_fit(images):
    with pytest.raises(ValueError, match="multiples of 8"):
        build(layer_pca=None)(images[..., :-1])


def test_preset(tmp_path):
    """On tiny weights: Stable Diffusion's part at 16 pixels a cell, DINOv2's on the same grid at 14."""
    dino = _tiny_dino(tmp_path / "dino")
    overrides = [f"features.parts.0.weights={SD_TINY}", f"features.parts.1.weights={dino}", "features.device=cpu"]
    overrides += ["features.parts.1.layer=1"]
    features = load_settings("sd_dino", overrides).features
    extractor = build_extractor(features.name, **features.options)
    assert (extractor.stride, extractor.multiple) == (16, 16)
    images = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    found = anchored(extractor, images[:1])(images)
    assert found.shape == (2, 128 + 24, 6, 10)
    for part in found.split([128, 24], 1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2, 6, 10))


def _tiny_dino(folder):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=84)
    Dinov2Model(config).save_pretrained(folder)
    return folder
