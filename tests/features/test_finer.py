from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from propagate.errors import UsageError
from propagate.features import build_extractor
from propagate.features.extractor import FinerExtractor
from propagate.features.finer import both_maps, pack
from propagate.features.passes import Passes, PassSize
from tests.features.adm.guided_diffusion import Options, random_state
from tests.features.stable_diffusion.tiny_pipelines import SD_TINY

ADM_TINY = Options(multipliers=(1, 1, 2), res_blocks=2, attention=(4,), head_channels=32)


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def adm_weights(tmp_path):
    torch.save(random_state(ADM_TINY), tmp_path / "adm.pt")
    return str(tmp_path / "adm.pt")


def separate(extractor, images, indices=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps of every picture of a batch."""
    both = both_maps(extractor)
    maps = [both.split(packed) for packed in both(images, indices)]
    return torch.stack([coarse for coarse, _ in maps]), torch.stack([finer for _, finer in maps])


def test_what_is_packed_is_split_again():
    class Both:
        stride, channels, multiple, finer_stride, finer_channels = 12, 5, 4, 4, 2

        def __call__(self, images, indices=None):
            raise AssertionError("only both maps are wanted")

        def with_finer(self, images, indices=None):
            return pack(coarse, finer)

    coarse, finer = torch.rand(2, 5, 3, 4), torch.rand(2, 2, 9, 12)
    both = both_maps(Both())
    assert (both.stride, both.finer_stride, both.multiple, both.channels) == (12, 4, 12, 5 + 9 * 2)
    found = separate(Both(), pictures(2, 36, 48))
    assert torch.equal(found[0], coarse)
    assert torch.equal(found[1], finer)


def test_both_maps_of_both_maps_are_the_same():
    both = both_maps(build_extractor("compact", device="cpu"))
    assert both_maps(both) is both


@pytest.mark.parametrize("block", [2, 3])
def test_the_features_of_compact_are_the_mean_of_its_finer_map(block):
    extractor, images = build_extractor("compact", block=block, dtype="float32", device="cpu"), pictures(2, 64, 96)
    plain = extractor(images)
    coarse, finer = separate(extractor, images)
    assert finer.shape == (2, extractor.channels, 16, 24)
    torch.testing.assert_close(F.avg_pool2d(finer, 2), coarse, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(coarse, plain, atol=1e-4, rtol=1e-3)


def test_compact_computes_its_finer_map_only_where_it_is_asked_for():
    extractor, images = build_extractor("compact", device="cpu"), pictures(1, 32, 64)
    calls = []
    extractor.networks[0].whole.register_forward_hook(lambda *_: calls.append("upsampler"))
    extractor(images)
    assert calls == []
    extractor.with_finer(images)
    assert calls == ["upsampler"]


@pytest.mark.parametrize("name", ["compact", "dift_sd"])
def test_draws_of_the_noise_are_averaged_in_both_maps(name):
    options = (
        {"dtype": "float32"} if name == "compact" else {"weights": str(SD_TINY), "up_ft_index": 1, "finer_ft_index": 2}
    )

    def build(**more):
        return build_extractor(name, noise="fresh", device="cpu", **options, **more)

    images = pictures(1, 64, 64)
    assert not torch.equal(
        build(ensemble_size=1).with_finer(images, [3]), build(ensemble_size=1).with_finer(images, [4])
    )
    two = build(ensemble_size=2, draws_per_pass=2)
    assert torch.allclose(two.with_finer(images, [3]), build(ensemble_size=2).with_finer(images, [3]), atol=1e-4)
    coarse, _ = separate(two, images, [3])
    torch.testing.assert_close(coarse, two(images, [3]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["dift_sd", "cleandift"])
@pytest.mark.parametrize(
    ("block", "finer_block", "stride", "finer_stride"), [(1, 2, 16, 8), (0, 2, 32, 8), (0, 1, 32, 16)]
)
def test_stable_diffusions_maps_are_those_of_its_blocks(name, block, finer_block, stride, finer_stride):
    def build(**options):
        weights = (
            {"weights": str(SD_TINY), "ensemble_size": 2}
            if name == "dift_sd"
            else {"weights": str(SD_TINY / "unet" / "diffusion_pytorch_model.safetensors"), "base": str(SD_TINY)}
        )
        return build_extractor(name, device="cpu", **weights, **options)

    extractor, images = build(up_ft_index=block, finer_ft_index=finer_block), pictures(1, 64, 96)
    assert (extractor.stride, extractor.finer_stride) == (stride, finer_stride)
    assert both_maps(extractor).multiple == stride
    coarse, finer = separate(extractor, images)
    torch.testing.assert_close(coarse, build(up_ft_index=block)(images), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(finer, build(up_ft_index=finer_block)(images), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(extractor(images), coarse, atol=1e-4, rtol=1e-3)


def test_adms_maps_are_those_of_its_blocks(adm_weights):
    def build(**options):
        options = {"ensemble_size": 2, "head_channels": ADM_TINY.head_channels, "device": "cpu"} | options
        return build_extractor("dift_adm", weights=adm_weights, **options)

    # three levels: blocks 0 and 1 have stride 4, 2 to 4 have 2, the others 1
    for block, finer_block in [(1, 2), (0, 4), (1, 6), (3, 5)]:
        extractor, images = build(up_ft_index=block, finer_ft_index=finer_block), pictures(1, 16, 24)
        coarse, finer = separate(extractor, images)
        torch.testing.assert_close(coarse, build(up_ft_index=block)(images), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(finer, build(up_ft_index=finer_block)(images), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(extractor(images), coarse, atol=1e-4, rtol=1e-3)
    with pytest.raises(UsageError, match=r"features\.finer_ft_index = 3: block 2 has stride 2"):
        build(up_ft_index=2, finer_ft_index=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rgb", {}),
        ("compact", {"block": 1}),
        ("dift_sd", {"weights": str(SD_TINY)}),
        ("dift_sd", {"weights": str(SD_TINY), "up_ft_index": 1}),
    ],
)
def test_features_without_a_finer_map_are_refused(name, options):
    extractor = build_extractor(name, device="cpu", **options)
    with pytest.raises(UsageError, match=r"propagation\.finer: the features have no map that is finer") as caught:
        both_maps(extractor)
    assert f"cells of {extractor.stride} pixels" in caught.value.message
    assert "features.finer_ft_index=8" in caught.value.remedy


@pytest.mark.parametrize(
    ("block", "finer", "remedy"), [(1, 0, "Choose 2 (stride 8), 3 (stride 8)."), (2, 3, "There is none")]
)
def test_a_block_that_is_not_finer_is_refused(block, finer, remedy):
    with pytest.raises(UsageError, match=rf"features\.finer_ft_index = {finer}: block {block} has stride") as caught:
        build_extractor("dift_sd", weights=str(SD_TINY), up_ft_index=block, finer_ft_index=finer, device="cpu")
    assert caught.value.remedy.startswith(remedy)


def test_passes_and_their_draws_reach_the_extractor():
    extractor = build_extractor("compact", dtype="float32", device="cpu", ensemble_size=2)
    assert isinstance(extractor, FinerExtractor)
    both, seen = both_maps(extractor), []
    whole, plain = both.__call__(pictures(2, 32, 32)), extractor.with_finer
    extractor.with_finer = lambda *given: seen.append(extractor.draws_per_pass) or plain(*given)
    torch.testing.assert_close(Passes(both, PassSize(1, 2))(pictures(2, 32, 32)), whole, atol=1e-4, rtol=1e-3)
    assert seen == [2, 2]
    assert extractor.draws_per_pass == 1
