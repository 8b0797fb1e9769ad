"""What every extractor of the table owes its callers."""

from __future__ import annotations

import pytest
import torch

from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor

NAMES = sorted(EXTRACTORS)


@pytest.fixture(params=NAMES, scope="module")
def extractor(request) -> FeatureExtractor:
    return build_extractor(request.param, device="cpu")


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
