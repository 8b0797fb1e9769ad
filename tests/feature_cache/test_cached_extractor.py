from __future__ import annotations

import json
import warnings
from functools import wraps

import numpy as np
import pytest
import torch

from propagate.errors import UsageError
from propagate.feature_cache import identity as extractor_identity
from propagate.feature_cache.cached_extractor import CachedExtractor
from propagate.feature_cache.store import CacheWarning, FeatureCache
from propagate.features import build_extractor
from propagate.features.anchoring import anchored
from propagate.features.compact.compact import CompactDiffusion
from propagate.features.finer import both_maps
from propagate.features.passes import Passes, PassSize
from propagate.features.rgb import ColorPatches
from propagate.files.checked_tensors import read_tensor, write_tensor
from propagate.pipeline import track
from propagate.planning.plan import plan_memory
from propagate.settings import load_with_origins
from propagate.types import Mask

KIND = "propagate features 1"
FUSION = "features=[{name: rgb, pca: 5}]"


@pytest.fixture
def calls(monkeypatch) -> dict[str, int]:
    """How often color patches are built, and of how many pictures they are computed."""
    counts = {"built": 0, "computed": 0}
    build, call = ColorPatches.__init__, ColorPatches.__call__

    @wraps(build)  # whose parameters are the extractor's options
    def counting_build(self, *arguments, **options):
        counts["built"] += 1
        build(self, *arguments, **options)

    def counting_call(self, images, indices=None):
        counts["computed"] += len(images)
        return call(self, images, indices)

    monkeypatch.setattr(ColorPatches, "__init__", counting_build)
    monkeypatch.setattr(ColorPatches, "__call__", counting_call)
    return counts


def settings(*overrides: str, preset: str = "rgb"):
    return load_with_origins(preset, ["features.device=cpu", "video.short_side=64", "propagation.radius=4", *overrides])


def cached(tmp_path, *overrides: str, preset: str = "rgb") -> CachedExtractor:
    return CachedExtractor(settings(*overrides, preset=preset), FeatureCache(tmp_path / "cache"))


def pictures(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def test_a_second_pass_is_equal_and_builds_nothing(tmp_path, calls):
    first = cached(tmp_path)(pictures(), [4, 5, 6])
    assert calls == {"built": 1, "computed": 3}
    second = cached(tmp_path)
    assert torch.equal(second(pictures(), [4, 5, 6]), first)
    assert (second.stride, second.channels, second.multiple) == (8, 48, 8)
    assert not second.is_built
    assert calls == {"built": 1, "computed": 3}


def test_only_what_is_missing_is_computed(tmp_path, calls):
    plain = build_extractor("rgb", device="cpu")(pictures(4))
    calls.update(built=0, computed=0)
    cached(tmp_path)(pictures(4)[[0, 2]], [0, 2])
    extractor = cached(tmp_path)
    assert torch.equal(extractor(pictures(4), [0, 1, 2, 3]), plain)
    assert calls == {"built": 2, "computed": 4}
    assert extractor.cache.counts == {"found": 2, "computed": 2, "kept": 2}


@pytest.mark.parametrize(
    "change",
    ["another picture", "another index", "another size", "another version", "other code"],
)
def test_what_decides_about_features_is_not_mistaken(tmp_path, calls, change, monkeypatch):
    cached(tmp_path)(pictures(1), [0])
    images, indices = pictures(1), [0]
    if change == "another picture":
        images[0, 1, 10, 10] += 1e-3
    elif change == "another index":
        indices = [1]
    elif change == "another size":
        images = images.reshape(1, 3, 96, 64)
    elif change == "another version":
        known = extractor_identity.provenance.versions()
        monkeypatch.setattr(extractor_identity.provenance, "versions", lambda: {**known, "torch": "0.0"})
    else:
        monkeypatch.setattr(extractor_identity, "own_code", lambda: "other")
    cached(tmp_path)(images, indices)
    assert calls["computed"] == 2


def test_weights_are_told_apart_by_their_content(tmp_path, monkeypatch):
    cached(tmp_path)
    monkeypatch.setattr(extractor_identity.provenance, "local_weights", lambda features: {"weights": "other"})
    cached(tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_weights_that_were_fetched_are_told_apart_by_their_commit(tmp_path, calls, monkeypatch):
    def fetched(_features):
        return {"owner/model": commit} if calls["built"] else {}  # fetched when the extractor is built

    monkeypatch.setattr(extractor_identity.provenance, "fetched_weights", fetched)
    commit = "old"
    cached(tmp_path)(pictures())
    cached(tmp_path)(pictures())
    assert calls == {"built": 1, "computed": 3}
    commit = "new"
    cached(tmp_path)(pictures())
    assert calls == {"built": 2, "computed": 6}


def test_settings_of_the_transfer_and_the_name_of_the_device_do_not_matter(tmp_path, calls):
    cached(tmp_path)(pictures())
    cached(tmp_path, "propagation.top_k=3", "labels.masks.vanish=0.3", "features.device=auto", "features.batch_size=3")(
        pictures()
    )
    assert calls["computed"] == (3 if not torch.cuda.is_available() else 6)


# descriptions that were edited
DAMAGED = {"no description": "{", "a list": "[]", "deep": '{"a":' * 10_000, "edited": ""}


@pytest.mark.parametrize("damage", ["cut", "other shape", *DAMAGED])
def test_what_is_damaged_is_computed_again(tmp_path, calls, damage):
    first = cached(tmp_path)(pictures())
    entries = sorted((tmp_path / "cache").glob("*/*.safetensors"))
    if damage == "cut":
        entries[1].write_bytes(entries[1].read_bytes()[:-7])
    elif damage == "other shape":
        write_tensor(entries[1], read_tensor(entries[1], KIND)[:, 1:], KIND)
    else:
        description = entries[0].parent / "extractor.json"
        description.write_text(DAMAGED[damage] or description.read_text().replace('"channels": 48', '"channels": 32'))
    again = cached(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(again(pictures()), first)
    assert [warning.category for warning in caught] == ([CacheWarning] if damage == "cut" else [])
    assert again.is_built
    assert calls["computed"] == (3 if damage in DAMAGED else 4)
    assert not cached(tmp_path).is_built


def test_the_description_says_what_was_hashed(tmp_path):
    cached(tmp_path, "features.seed=3", preset="compact")
    (path,) = (tmp_path / "cache").glob("*/extractor.json")
    found = json.loads(path.read_text())
    assert found["settings"]["features.seed"] == 3
    assert found["settings"]["features.timestep"] == 51
    assert found["device"] == "cpu"
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["weights"]) == {"weights"}


def test_what_is_learned_from_the_first_frame_belongs_to_it(tmp_path, calls):
    plain = build_extractor("fusion", parts=[{"name": "rgb", "pca": 5}], device="cpu")
    expected = anchored(plain, pictures(1, seed=1))(pictures())
    calls.update(built=0, computed=0)
    first = anchored(cached(tmp_path, FUSION), pictures(1, seed=1), [0])
    assert torch.equal(first(pictures(), [0, 1, 2]), expected)
    computed = calls["computed"]
    second = anchored(cached(tmp_path, FUSION), pictures(1, seed=1), [0])
    assert torch.equal(second(pictures(), [0, 1, 2]), expected)
    assert calls == {"built": 1, "computed": computed}
    other = anchored(second, pictures(1, seed=2), [0])
    assert not torch.equal(other(pictures(), [0, 1, 2]), expected)
    assert calls["computed"] > computed


def test_an_extractor_without_its_anchor_is_refused(tmp_path):
    with pytest.raises(UsageError, match="PCA"):
        cached(tmp_path, FUSION)(pictures())


def test_passes_decide_how_many_draws_go_through_together(tmp_path):
    options = ("features.ensemble_size=4", "features.draws_per_pass=4")
    extractor = cached(tmp_path, *options, preset="compact")
    seen = []
    network = extractor.network
    network.networks[0].start.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    Passes(extractor, PassSize(1, 2))(pictures(1), [0])
    assert seen == [2, 2]
    assert cached(tmp_path, *options, preset="compact").draws_per_pass == 4
    assert not hasattr(cached(tmp_path), "draws_per_pass")


def test_memory_can_be_estimated_and_nothing_is_kept_by_it(tmp_path):
    extractor = cached(tmp_path)
    with_cache = plan_memory(extractor, (64, 96), settings().settings)
    assert with_cache == plan_memory(build_extractor("rgb", device="cpu"), (64, 96), settings().settings)
    assert list((tmp_path / "cache").glob("*/*.safetensors")) == []


def test_another_mask_and_top_k_cost_no_features_and_change_no_bit(tmp_path, calls):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(5)]
    ids = np.zeros((64, 96), np.uint8)
    ids[16:40, 16:40] = 1
    resolved = settings("output.soft=true", "features.batch_size=2")
    list(
        track(
            frames, Mask(ids), extractor=CachedExtractor(resolved, FeatureCache(tmp_path)), settings=resolved.settings
        )
    )
    assert calls == {"built": 1, "computed": 5}
    other = settings("output.soft=true", "features.batch_size=2", "propagation.top_k=3")
    moved = Mask(np.roll(ids, 8, axis=1))
    warm = CachedExtractor(other, FeatureCache(tmp_path))
    found = [p.soft for p in track(frames, moved, extractor=warm, settings=other.settings)]
    assert calls == {"built": 1, "computed": 5}
    expected = [p.soft for p in track(frames, moved, settings=other.settings)]
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@pytest.fixture
def tiny_compact(monkeypatch):
    """How often the network of `compact` runs."""
    calls: list[str] = []
    for name in ("__call__", "with_finer"):
        plain = getattr(CompactDiffusion, name)

        @wraps(plain)
        def counting(self, *arguments, name=name, plain=plain, **options):
            calls.append(name)
            return plain(self, *arguments, **options)

        monkeypatch.setattr(CompactDiffusion, name, counting)
    return calls


def test_both_maps_are_kept_beside_the_features(tmp_path, tiny_compact):
    images = pictures(2)[:, :, :32, :32]
    first = cached(tmp_path, preset="compact")
    assert (first.finer_stride, first.finer_channels) == (4, first.channels)
    both, plain = both_maps(first)(images, [0, 1]), first(images, [0, 1])
    assert tiny_compact == ["with_finer", "__call__"]
    second = cached(tmp_path, preset="compact")
    assert torch.equal(both_maps(second)(images, [0, 1]), both)
    assert torch.equal(second(images, [0, 1]), plain)
    assert not second.is_built
    assert len(tiny_compact) == 2


def test_the_cache_of_features_without_a_finer_map_has_none(tmp_path):
    for _ in range(2):
        with pytest.raises(UsageError, match=r"propagation\.finer: the features have no map"):
            both_maps(cached(tmp_path))
