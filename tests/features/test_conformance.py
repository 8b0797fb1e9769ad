"""What every extractor of the table owes its callers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from propagate.errors import WeightsError
from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor, extractor_options
from propagate.features.anchoring import anchored
from propagate.features.label_reader import LabelReader
from propagate.types import Keypoints

DATA = Path(__file__).parent.parent / "parity" / "data"
SD = DATA / "sd_tiny_0" / "pipeline"
VIT = DATA / "vit_tiny_0"

# models that do not travel in the wheel: their tiny likes
TINY = {
    "dift_adm": {"weights": DATA / "adm_tiny_0" / "adm_tiny_uncond.pt", "head_channels": 16, "up_ft_index": 5},
    "dift_sd": {"weights": SD, "ensemble_size": 2},
    "cleandift": {"weights": SD / "unet" / "diffusion_pytorch_model.safetensors", "base": SD},
    "dino": {"weights": VIT / "dino_hf"},
    "dinov2": {"weights": VIT / "dinov2_reg_hf"},
    "dinov3": {"weights": VIT / "dinov3_hf"},
    "openclip": {"weights": VIT / "clip_hf"},
    "fusion": {"parts": [{"name": "rgb", "pca": 8}, {"name": "compact", "weight": 0.5}]},
    "hyperfeatures": {"weights": SD, "aggregator": DATA / "hyperfeatures_tiny_0" / "aggregation_network_sd_tiny.pt"},
    "prompt_attention": {"weights": SD, "steps": 2},
    "sd_layers": {"weights": SD, "layer_pca": 8},
}


@pytest.fixture(params=sorted(EXTRACTORS), scope="module")
def extractor(request, tmp_path_factory) -> FeatureExtractor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        built = build_extractor(request.param, device="cpu", **TINY.get(request.param, {}))
        first = pictures(built, seed=1)[:1]
        if isinstance(built, LabelReader):
            size = (first.shape[-2], first.shape[-1])
            return built.for_label(first[0], Keypoints(np.array([[20, 20]], np.float32), ("tip",)), size)
        return anchored(built, first)


@pytest.fixture
def images(extractor) -> torch.Tensor:
    return pictures(extractor)


def pictures(extractor: FeatureExtractor, seed: int = 0) -> torch.Tensor:
    least = -(-32 // extractor.multiple) * extractor.multiple
    height, width = 2 * least, 3 * least
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_shape_and_dtype(extractor, images):
    features = extractor(images)
    height, width = images.shape[-2:]
    assert features.shape == (3, extractor.channels, -(-height // extractor.stride), -(-width // extractor.stride))
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_the_same_again(extractor, images):
    assert torch.equal(extractor(images), extractor(images))


def test_a_frame_does_not_depend_on_its_batch(extractor, images):
    together = extractor(images, indices=[4, 7, 9])
    for place, index in enumerate([4, 7, 9]):
        alone = extractor(images[place : place + 1], indices=[index])
        torch.testing.assert_close(together[place : place + 1], alone, atol=1e-4, rtol=1e-4)


def test_different_pictures_have_different_features(extractor, images):
    features = extractor(images)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_no_gradient_is_kept(extractor, images):
    assert not extractor(images).requires_grad


def test_a_size_that_does_not_fit_is_refused(extractor, images):
    with pytest.raises((ValueError, RuntimeError), match=r"multiple|divisible"):
        extractor(images[..., :-1])


WITH_WEIGHTS = sorted(name for name in EXTRACTORS if "weights" in extractor_options(name))


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_that_are_not_there_are_named(name, tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        build_extractor(name, **{**TINY.get(name, {}), "weights": tmp_path / "nowhere"}, device="cpu")


@pytest.mark.parametrize(
    "name", [name for name in WITH_WEIGHTS if name != "compact"]
)  # whose weights are in the package
def test_without_weights_and_without_a_network(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match="not on this machine, and downloads are switched off"):
        build_extractor(name, device="cpu")
