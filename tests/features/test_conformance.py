"""What every extractor of the table owes its callers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor

DATA = Path(__file__).parent.parent / "parity" / "data"
SD = DATA / "sd_tiny_0" / "pipeline"

# models that do not travel in the wheel: their tiny likes
TINY = {
    "dift_adm": {"weights": DATA / "adm_tiny_0" / "adm_tiny_uncond.pt", "head_channels": 16, "up_ft_index": 5},
    "dift_sd": {"weights": SD, "ensemble_size": 2},
    "cleandift": {"weights": SD / "unet" / "diffusion_pytorch_model.safetensors", "base": SD},
}


@pytest.fixture(params=sorted(EXTRACTORS), scope="module")
def extractor(request, tmp_path_factory) -> FeatureExtractor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return build_extractor(request.param, device="cpu", **TINY.get(request.param, {}))


@pytest.fixture
def images(extractor) -> torch.Tensor:
    height, width = 2 * max(extractor.multiple, 32), 3 * max(extractor.multiple, 32)
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))


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
