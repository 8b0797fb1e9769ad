"""The contract of every extractor: ours, each of which has to be in `OPTIONS`, and those of installed packages."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest
import torch

from propagate.errors import WeightsError
from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor, extractor_names, extractor_options
from propagate.features.anchoring import anchored
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.features.passes import Passes, largest_pass
from propagate.types import Keypoints
from tests.places import PARITY_DATA

DATA = PARITY_DATA
SD = DATA / "sd_tiny_0" / "pipeline"
VIT = DATA / "vit_tiny_0"

# options of every extractor of ours; for models that are not in the wheel: tiny weights
OPTIONS: dict[str, dict[str, Any]] = {
    "cleandift": {"weights": SD / "unet" / "diffusion_pytorch_model.safetensors", "base": SD},
    "compact": {},
    "dift_adm": {"weights": DATA / "adm_tiny_0" / "adm_tiny_uncond.pt", "head_channels": 16, "up_ft_index": 5},
    "dift_sd": {"weights": SD, "ensemble_size": 2},
    "dino": {"weights": VIT / "dino_hf"},
    "dinov2": {"weights": VIT / "dinov2_reg_hf"},
    "dinov3": {"weights": VIT / "dinov3_hf"},
    "fusion": {"parts": [{"name": "rgb", "pca": 8}, {"name": "compact", "weight": 0.5}]},
    "hyperfeatures": {"weights": SD, "aggregator": DATA / "hyperfeatures_tiny_0" / "aggregation_network_sd_tiny.pt"},
    "openclip": {"weights": VIT / "clip_hf"},
    "prompt_attention": {"weights": SD, "steps": 2},
    "rgb": {},
    "sd_layers": {"weights": SD, "layer_pca": 8},
}
WITHOUT_WEIGHTS = {"rgb"}
IN_THE_PACKAGE = {"compact"}  # its weights are
NOWHERE = "no/such/place.safetensors"
# the options that name weights; of a fusion, those of its parts
FILES = {
    "cleandift": ({"weights": NOWHERE}, {"base": NOWHERE}),
    "fusion": ({"parts": [{"name": "rgb"}, {"name": "dift_sd", "weights": NOWHERE}]},),
    "hyperfeatures": ({"weights": NOWHERE}, {"aggregator": NOWHERE}),
}
PUBLISHED = {"fusion": {"parts": [{"name": "rgb"}, {"name": "dift_sd"}]}}  # the others: without any option


def files(name: str) -> tuple[dict[str, Any], ...]:
    """Options that name weights which are not there."""
    if name in WITHOUT_WEIGHTS or (name not in EXTRACTORS and "weights" not in extractor_options(name)):
        return ()
    return FILES.get(name, ({"weights": NOWHERE},))


def build(name: str, **options: Any) -> FeatureExtractor:
    """An extractor that knows its clip."""
    placed = {"device": "cpu"} if "device" in extractor_options(name) else {}
    built = build_extractor(name, **{**placed, **OPTIONS.get(name, {}), **options})
    first = pictures(built, seed=1)[:1]
    if isinstance(built, LabelReader):
        size = (first.shape[-2], first.shape[-1])
        return built.for_label(first[0], Keypoints(np.array([[20, 20]], np.float32), ("tip",)), size)
    return anchored(built, first)


def pictures(extractor: FeatureExtractor, seed: int = 0, rows: int = 2, columns: int = 3) -> torch.Tensor:
    """Three pictures of at least so many times 32 pixels, as small as the extractor allows."""
    least = -(-32 // extractor.multiple) * extractor.multiple
    return torch.rand(3, 3, rows * least, columns * least, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=extractor_names(), scope="module")
def name(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield request.param


@pytest.fixture(scope="module")
def extractor(name) -> FeatureExtractor:
    return build(name)


@pytest.fixture
def images(extractor) -> torch.Tensor:
    return pictures(extractor)


def test_all_of_ours_are_looked_at():
    """A new extractor needs a line in `OPTIONS`: the tests below run for those only."""
    assert set(OPTIONS) == set(EXTRACTORS)


def test_the_shape_is_that_of_channels_and_stride(extractor, images):
    started = pictures(extractor, rows=3)[..., extractor.multiple :, extractor.multiple :]
    # a fusion takes whole cells of all its parts, which its multiple says
    for batch in (images, images[:1], started):
        height, width = batch.shape[-2:]
        grid = (-(-height // extractor.stride), -(-width // extractor.stride))
        assert extractor(batch).shape == (len(batch), extractor.channels, *grid)


def test_the_grid_lies_as_the_picture_does(extractor, images):
    """What changes in one quarter of a picture changes the features most in that quarter of the grid."""
    if isinstance(extractor, LabelReader):
        pytest.skip("says where the label is, not what is there")
    height, width = images.shape[-2:]
    changed = images[:1].clone()
    changed[..., : height // 2, width // 2 :] = images[1:2, :, : height // 2, width // 2 :]
    moved = (extractor(changed) - extractor(images[:1])).abs().mean((0, 1))
    rows, columns = moved.shape
    quarter = moved[: rows // 2, columns - columns // 2 :].mean()
    assert quarter > moved[rows - rows // 2 :, : columns // 2].mean()
    assert quarter > moved.mean()


def test_the_features_are_numbers_of_single_precision(extractor, images):
    features = extractor(images)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert not features.requires_grad


def test_half_precision_comes_out_as_single(name, images):
    if "dtype" not in extractor_options(name):
        pytest.skip("has no precisions to choose from")
    features = build(name, dtype="bfloat16")(images[:1])
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_the_same_again(name, extractor, images):
    """Whatever was computed in between, whatever the state of torch's own generator, and from an extractor anew."""
    before, copied = extractor(images), images.clone()
    extractor(pictures(extractor, seed=5)[:2])
    torch.manual_seed(int(before.numel()))
    assert torch.equal(extractor(images), before)
    torch.testing.assert_close(build(name)(images), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(images, copied)


def test_a_frame_does_not_depend_on_its_batch(extractor, images):
    """As runs compute it, bit for bit; a batch that goes through the network together may be rounded otherwise."""
    run = Passes(extractor, largest_pass(extractor, len(images)))
    together, direct = run(images, indices=[4, 7, 9]), extractor(images, indices=[4, 7, 9])
    for place, index in enumerate([4, 7, 9]):
        alone = run(images[place : place + 1], indices=[index])
        assert torch.equal(together[place : place + 1], alone)
    assert torch.equal(run(images.flip(0), indices=[9, 7, 4]).flip(0), together)
    # processors differ in how they round a batch: by what share of the largest feature is a matter of precision
    assert (direct - together).abs().max() <= 1e-4 * together.abs().max()


def test_different_pictures_have_different_features(extractor, images):
    features = extractor(images)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_a_size_that_does_not_fit_is_refused(extractor, images):
    for wrong in (images[..., :-1], images[..., :-1, :]):
        with pytest.raises((ValueError, RuntimeError), match=r"multiple|divisible"):
            extractor(wrong)


@pytest.mark.parametrize(
    ("name", "missing"), [pytest.param(name, missing) for name in extractor_names() for missing in files(name)]
)
def test_weights_that_are_not_there_are_named(name, missing):
    with pytest.raises(WeightsError, match=r"no/such/place\.safetensors"):
        build_extractor(name, **{**OPTIONS.get(name, {}), **missing})


def test_nothing_touches_the_network(name, images, monkeypatch):
    def refused(*arguments: object) -> None:
        raise AssertionError(f"a connection was tried: {arguments}")

    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert build(name)(images[:1]).isfinite().all()


@pytest.mark.parametrize("name", sorted({*EXTRACTORS} - WITHOUT_WEIGHTS - IN_THE_PACKAGE))
def test_without_weights_and_without_a_network(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match="not on this machine, and downloads are off"):
        build_extractor(name, **PUBLISHED.get(name, {}), device="cpu")
