from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from propagate import features
from propagate.errors import UsageError
from propagate.features import build_extractor
from propagate.features.anchoring import anchored, fit_principal_components
from propagate.features.passes import Passes, PassSize, SmallerPassWarning
from propagate.geometry import to_tensor
from propagate.pipeline import extract
from propagate.planning.dry_run import dry_run
from propagate.settings import FeatureSettings, Settings, VideoSettings
from propagate.types import Frame

RGB = {"name": "rgb"}


class Patches:
    """A made-up extractor: mean colors of its cells, each channel repeated."""

    def __init__(self, stride: int = 16, multiple: int | None = None, device: str = "cpu", repeat: int = 1) -> None:
        self.stride, self.channels, self.multiple = stride, 3 * repeat, multiple or stride
        self.device, self.repeat, self.draws_per_pass = device, repeat, 4
        self.sizes: list[tuple[int, int]] = []
        self.draws: list[int] = []

    def __call__(self, images, indices=None):
        self.sizes.append(tuple(images.shape[-2:]))
        self.draws.append(self.draws_per_pass)
        return F.avg_pool2d(images, self.stride).repeat(1, self.repeat, 1, 1)


@pytest.fixture
def named(monkeypatch):
    """Extractors that can be named as parts, beside the usual ones."""
    made = {}
    usual = features._builder
    monkeypatch.setattr(features, "_builder", lambda name: (lambda: made[name], None) if name in made else usual(name))
    return made


def build(*parts, **options):
    return build_extractor("fusion", parts=list(parts), device="cpu", **options)


def pictures(count: int = 2, size: tuple[int, int] = (64, 96), seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_one_part_alone_is_that_part():
    images = pictures()
    expected = build_extractor("rgb", device="cpu")(images)
    assert torch.equal(build({**RGB, "normalize": False})(images), expected)
    torch.testing.assert_close(build({**RGB, "weight": 3})(images), 3 * F.normalize(expected, dim=1))


def test_the_cosine_is_the_weighted_mean_of_the_parts_cosines(named):
    named["patches"] = Patches(8, repeat=2)
    fused = build({**RGB, "weight": 2}, {"name": "patches", "weight": 0.5})
    assert (fused.stride, fused.channels, fused.multiple) == (8, 48 + 6, 8)
    first, second = pictures()
    each = [build_extractor("rgb", device="cpu"), named["patches"]]
    cosines = [F.cosine_similarity(e(first[None]), e(second[None]), dim=1) for e in each]
    expected = (4 * cosines[0] + 0.25 * cosines[1]) / 4.25
    torch.testing.assert_close(F.cosine_similarity(fused(first[None]), fused(second[None]), dim=1), expected)


def test_a_coarser_part_is_resampled_to_the_finest_grid(named):
    named["coarse"] = Patches(24)
    fused = build({**RGB, "normalize": False}, {"name": "coarse", "normalize": False})
    assert (fused.stride, fused.multiple) == (8, 24)
    # a ramp to the right: away from the border bilinear resampling gives the finer cells' own means
    ramp = torch.linspace(0, 1, 240).expand(1, 3, 48, 240).contiguous()
    found = fused(ramp)[:, 48:]
    assert found.shape == (1, 3, 6, 30)
    torch.testing.assert_close(found[..., 1:-1], F.avg_pool2d(ramp, 8)[..., 1:-1], atol=1e-5, rtol=0)
    assert named["coarse"].sizes == [(48, 240)]


def test_a_part_can_be_given_the_picture_at_the_size_of_the_common_grid(named):
    named["fourteen"] = Patches(14)
    named["sixteen"] = Patches(16)
    fused = build({"name": "fourteen", "fit": "picture"}, {"name": "sixteen"})
    assert (fused.stride, fused.multiple) == (16, 16)
    assert fused(pictures(size=(960, 480))).shape == (2, 6, 60, 30)
    assert named["fourteen"].sizes == [(840, 420)]
    assert named["sixteen"].sizes == [(960, 480)]


def test_pca_is_of_the_anchor_and_stays():
    first, second = pictures(1, seed=1), pictures(3, seed=2)
    fused = anchored(build({**RGB, "pca": 8, "normalize": False}), first)
    plain = build_extractor("rgb", device="cpu")
    basis = fit_principal_components(plain(first), 8)
    assert fused.channels == 8
    torch.testing.assert_close(fused(second), basis.project(plain(second)))
    assert torch.equal(fused(second), anchored(build({**RGB, "pca": 8, "normalize": False}), first)(second))


def test_another_clip_has_another_basis():
    """The extractor that is anchored learns nothing itself, so clips do not depend on those before them."""
    extractor = build({**RGB, "pca": 8})
    one, other = pictures(1, seed=1), pictures(1, seed=2)
    first = anchored(extractor, one)(one)
    assert not torch.allclose(anchored(extractor, other)(one), first, atol=1e-2)
    assert torch.equal(anchored(extractor, one)(one), first)


def test_several_pictures_are_fitted_together():
    """As published for the two pictures of a pair."""
    both = pictures(2, seed=3)
    joint = anchored(build({**RGB, "pca": 8, "normalize": False}), both)
    basis = fit_principal_components(build_extractor("rgb", device="cpu")(both), 8)
    torch.testing.assert_close(joint(both), basis.project(build_extractor("rgb", device="cpu")(both)))


def test_without_pca_there_is_nothing_to_learn():
    extractor = build(RGB, {"name": "compact"})
    assert anchored(extractor, torch.zeros(1, 3, 64, 64)) is extractor


def test_a_fusion_in_a_fusion_is_anchored_too():
    images = pictures()
    inner = {"name": "fusion", "parts": [{**RGB, "pca": 8}]}
    nested = anchored(build({**inner, "normalize": False}), images[:1])
    assert torch.equal(nested(images), anchored(build({**RGB, "pca": 8}), images[:1])(images))


def test_a_clip_is_anchored_at_its_first_frame_whatever_the_batch():
    rng = np.random.default_rng(0)
    frames = [Frame(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), index, 0.0) for index in range(4)]
    options = {"parts": [{**RGB, "pca": 6}, {"name": "compact", "pca": 12, "weight": 0.5}], "device": "cpu"}
    extractor = build_extractor("fusion", **options)
    runs = []
    for batch_size in (1, 3, 4):
        settings = Settings(
            features=FeatureSettings(name="fusion", batch_size=batch_size, **options),
            video=VideoSettings(short_side=64),
        )
        runs.append(torch.stack([found for _, found in extract(frames, extractor, settings)]))
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0], rtol=1e-4, atol=1e-5)
    images = torch.stack([to_tensor(frame.pixels) for frame in frames])
    torch.testing.assert_close(runs[0], anchored(extractor, images[:1])(images), rtol=1e-4, atol=1e-5)


def test_memory_can_be_estimated():
    extractor = build({**RGB, "pca": 8}, {"name": "compact"})
    images = pictures(1)
    before = anchored(extractor, images)(images)
    found = dry_run(lambda: anchored(extractor, torch.empty(1, 3, 64, 96))(torch.empty(1, 3, 64, 96)))
    assert found.created > 8 * 12 * 136 * 4
    assert torch.equal(anchored(extractor, images)(images), before)


def test_parts_on_two_devices_work_at_the_same_time(named):
    meeting = threading.Barrier(2, timeout=20)

    class Waiting(Patches):
        def __call__(self, images, indices=None):
            meeting.wait()  # ends only when the other part has begun, too
            assert not torch.is_grad_enabled()
            return super().__call__(images, indices)

    named["one"], named["other"] = Waiting(device="cpu"), Waiting(device="cpu:1", repeat=2)
    fused = build({"name": "one"}, {"name": "other"})
    images = pictures()
    torch.testing.assert_close(fused(images)[:, :3], F.normalize(F.avg_pool2d(images, 16), dim=1))


def test_an_error_of_a_part_beside_another_is_not_lost(named):
    class Failing(Patches):
        def __call__(self, images, indices=None):
            raise torch.OutOfMemoryError("none left")

    named["one"], named["other"] = Patches(), Failing(device="cpu:1")
    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        build({"name": "one"}, {"name": "other"})(pictures())


def test_draws_per_pass_reach_the_parts_and_do_not_exceed_their_own(named):
    named["one"], named["other"] = Patches(), Patches()
    named["one"].draws_per_pass = 2
    fused = build({"name": "one"}, {"name": "other"}, RGB)
    assert fused.draws_per_pass == 4
    for draws in (1, 3, 4):
        Passes(fused, PassSize(2, draws))(pictures())
    assert named["one"].draws == [1, 2, 2]
    assert named["other"].draws == [1, 3, 4]
    assert (named["one"].draws_per_pass, named["other"].draws_per_pass) == (2, 4)


def test_memory_that_runs_out_at_the_anchor_halves_the_pass_too(named):
    class Heavy(Patches):
        def __call__(self, images, indices=None):
            if self.draws_per_pass > 2:
                raise torch.OutOfMemoryError("none left")
            return super().__call__(images, indices)

    named["heavy"] = Heavy(repeat=2)
    images = pictures()
    passes = Passes(build({"name": "heavy", "pca": 3}), PassSize(2, 4))
    with pytest.warns(SmallerPassWarning, match="2 frames x 4 draws .* 1 frame x 2 draws"):
        fitted = anchored(passes, images[:1])
    assert fitted.size == PassSize(1, 2)
    found = fitted(images)
    named["heavy"].draws_per_pass = 1
    torch.testing.assert_close(found, anchored(build({"name": "heavy", "pca": 3}), images[:1])(images))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "features.parts is empty"),
        ([{"weight": 1.0}], "features.parts.0.name"),
        ([RGB, {"name": "rgbs"}], "features.parts.1.name = rgbs: there is no such extractor. Did you mean rgb?"),
        ([{**RGB, "seed": 3}], "features.parts.0.seed: rgb has no such option"),
        ([RGB, {"name": "compact", "timestep": -1}], "features.parts.1.timestep = -1: Input should be greater"),
        ([RGB, {**RGB, "weight": 0}], "features.parts.1.weight = 0: Input should be greater than or equal to"),
        ([{**RGB, "pca": 49}], "features.parts.0.pca = 49: rgb has 48 channels"),
        ([{**RGB, "fit": "picture"}], "there is no grid to fit to"),
        ([RGB, {"name": "compact", "fit": "picture"}], "features.parts.1.fit = picture: compact takes multiples of 32"),
    ],
)
def test_bad_parts_are_named(parts, words):
    with pytest.raises(UsageError) as error:
        build(*parts)
    assert words in str(error.value)


def test_more_components_than_cells():
    extractor = build(RGB, {**RGB, "pca": 12})
    assert anchored(extractor, pictures(1, (16, 56))).channels == 60
    with pytest.raises(UsageError, match=r"features\.parts\.1\.pca = 12: rgb gives a grid of 6x2 cells, .* at most 11"):
        anchored(extractor, pictures(1, (16, 48)))


def test_pca_without_an_anchor():
    with pytest.raises(UsageError, match=r"has not been fitted.*anchored\(extractor, first_frame\)"):
        build({**RGB, "pca": 8})(pictures())


def test_pictures_of_started_cells_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        build(RGB)(pictures(1, (20, 32)))
