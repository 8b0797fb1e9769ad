from __future__ import annotations

import os
import time
import warnings

import pytest
import torch
from safetensors.torch import save_file

from propagate.errors import InputError
from propagate.feature_cache.store import CacheWarning, FeatureCache

ENTRY = 4 * 10 * 10 * 10  # bytes of features(...)


def features(value: float) -> torch.Tensor:
    return torch.full((10, 10, 10), float(value))


@pytest.fixture
def place(tmp_path):
    (tmp_path / "cache" / "way").mkdir(parents=True)
    return lambda name: tmp_path / "cache" / "way" / f"{name}.safetensors"


def kept(cache: FeatureCache) -> list[str]:
    return sorted(path.stem for path in cache.folder.glob("*/*.safetensors"))


def size_of(cache: FeatureCache) -> int:
    return sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())


def age(path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_come_back_bit_for_bit(tmp_path, place, dtype):
    made = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    FeatureCache(tmp_path / "cache").keep(place("a"), made.transpose(1, 2).contiguous().transpose(1, 2))
    found = FeatureCache(tmp_path / "cache").load(place("a"))
    assert found.dtype == dtype
    assert torch.equal(found, made)


@pytest.mark.parametrize("damage", ["empty", "zeros", "no json", "one bit", "another's"])
def test_what_is_damaged_is_not_there_and_said_once(tmp_path, place, damage):
    cache = FeatureCache(tmp_path / "cache")
    assert cache.load(place("a")) is None
    for name in "abc":
        cache.keep(place(name), features(ord(name)))
    whole = place("a").read_bytes()
    contents = {"empty": b"", "zeros": b"\0" * 4000, "no json": b"\x08\0\0\0\0\0\0\0not json"}
    contents |= {"one bit": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:], "another's": place("b").read_bytes()}
    for name in "ac":
        place(name).write_bytes(contents[damage])
    with pytest.warns(CacheWarning, match=r"Features in the cache are damaged .*a\.safetensors"):
        assert cache.load(place("a")) is None
    assert cache.load(place("c")) is None  # without another warning
    cache.keep(place("a"), features(1))
    assert torch.equal(cache.load(place("a")), features(1))


def test_what_was_not_used_for_longest_goes_first(tmp_path, place):
    old = FeatureCache(tmp_path / "cache")
    for number, name in enumerate("abcd"):
        old.keep(place(name), features(number))
        age(place(name), 1000 - number)
    new = FeatureCache(tmp_path / "cache", limit=5 * (ENTRY + 192))
    assert new.load(place("a")) is not None  # now the newest
    for name in ("e", "f"):
        new.keep(place(name), features(9))
    assert kept(new) == ["a", "c", "d", "e", "f"]
    assert size_of(new) <= new.limit


def test_it_is_bounded_and_keeps_the_first_of_what_does_not_fit(tmp_path, place):
    cache = FeatureCache(tmp_path / "cache", limit=3 * (ENTRY + 192))
    for name in "abc":
        cache.keep(place(name), features(1))
    with pytest.warns(CacheWarning, match=r"No more features are kept in .*cache: .* are full\. Raise --cache-size"):
        cache.keep(place("d"), features(1))
    cache.keep(place("e"), features(1))  # without another warning
    assert kept(cache) == ["a", "b", "c"]
    assert size_of(cache) <= cache.limit
    assert cache.counts["kept"] == 3


def test_runs_at_the_same_time_exceed_the_bound_by_their_sixteenth_at_most(tmp_path, place):
    limit = 64 * (ENTRY + 192)
    runs = [FeatureCache(tmp_path / "cache", limit) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for number in range(100):
            for run, cache in enumerate(runs):
                cache.keep(place(f"{run}-{number}"), features(1))
    assert size_of(runs[0]) <= limit * (1 + 2 / 16)


def test_other_files_are_left_alone(tmp_path, place):
    folder = tmp_path / "cache"
    cache = FeatureCache(folder, limit=ENTRY + 192)
    cache.keep(place("a"), features(1))
    for name in ("mine", "my_models/x", "my_models/.x.01234567", "way/mine", "way/.unfinished"):
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({"features": torch.ones(10**5)}, path)
        age(path, 10**6)
    (folder / "way" / "notes.txt").write_bytes(b"x")
    before = {path for path in folder.rglob("*") if path.is_file()}
    FeatureCache(folder, limit=ENTRY + 192).keep(place("b"), features(1))
    assert {path for path in folder.rglob("*") if path.is_file()} == before - {place("a")} | {place("b")}


def test_links_are_not_followed(tmp_path, place):
    elsewhere = tmp_path / "elsewhere"
    outer = FeatureCache(elsewhere)
    outer.keep(elsewhere / "way" / "a.safetensors", features(1))
    cache = FeatureCache(tmp_path / "cache", limit=ENTRY + 192)
    (tmp_path / "cache" / "linked").symlink_to(elsewhere / "way", target_is_directory=True)
    place("b").symlink_to(elsewhere / "way" / "a.safetensors")
    with pytest.warns(CacheWarning, match="damaged"):
        assert cache.load(place("b")) is None
    cache.keep(place("c"), features(2))
    with pytest.warns(CacheWarning, match="is a link"):
        cache.keep(tmp_path / "cache" / "linked" / "d.safetensors", features(2))
    assert torch.equal(FeatureCache(elsewhere).load(elsewhere / "way" / "a.safetensors"), features(1))
    assert [path.name for path in (elsewhere / "way").glob("*.safetensors")] == ["a.safetensors"]


def test_what_a_killed_run_left_is_removed_once_it_is_old(tmp_path, place):
    FeatureCache(tmp_path / "cache").keep(place("a"), features(1))
    left, in_work = place(".a.01234567"), place(".b.89abcdef")
    for path in (left, in_work):
        path.write_bytes(b"half")
    age(left, 2 * 3600)
    FeatureCache(tmp_path / "cache").keep(place("c"), features(1))
    assert not left.exists()
    assert in_work.exists()


def test_a_disk_that_fails_is_a_warning_and_the_end_of_keeping(tmp_path, place, monkeypatch):
    cache = FeatureCache(tmp_path / "cache")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("propagate.feature_cache.store.write_tensor", full)
    with pytest.warns(CacheWarning, match="No more features are kept in .*the disk is full"):
        cache.keep(place("a"), features(1))
    monkeypatch.undo()
    cache.keep(place("b"), features(1))
    assert kept(cache) == []
    assert not list(cache.folder.glob("*/.*"))


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is a file"):
        FeatureCache(tmp_path / "file")
