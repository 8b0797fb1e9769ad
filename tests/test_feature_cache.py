from __future__ import annotations

import os
import time
import warnings

import pytest
import torch

from propagate.errors import InputError
from propagate.feature_cache import CacheWarning, FeatureCache

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


@pytest.mark.parametrize("content", [b"", b"\0" * 4000, b"\x08\0\0\0\0\0\0\0not json"])
def test_what_cannot_be_read_is_not_there(tmp_path, place, content):
    cache = FeatureCache(tmp_path / "cache")
    assert cache.load(place("a")) is None
    place("a").write_bytes(content)
    assert cache.load(place("a")) is None
    cache.keep(place("a"), features(1))
    assert torch.equal(cache.load(place("a")), features(1))


def test_what_was_not_used_for_longest_goes_first(tmp_path, place):
    old = FeatureCache(tmp_path / "cache")
    for number, name in enumerate("abcd"):
        old.keep(place(name), features(number))
        age(place(name), 1000 - number)
    new = FeatureCache(tmp_path / "cache", limit=5 * (ENTRY + 128))
    assert new.load(place("a")) is not None  # now the newest
    for name in ("e", "f"):
        new.keep(place(name), features(9))
    assert kept(new) == ["a", "c", "d", "e", "f"]
    assert size_of(new) <= new.limit


def test_it_is_bounded_and_keeps_the_first_of_what_does_not_fit(tmp_path, place):
    cache = FeatureCache(tmp_path / "cache", limit=3 * (ENTRY + 128))
    for name in "abc":
        cache.keep(place(name), features(1))
    with pytest.warns(CacheWarning, match=r"No more features are kept in .*cache: .* are full\. Raise --cache-size"):
        cache.keep(place("d"), features(1))
    cache.keep(place("e"), features(1))  # without another warning
    assert kept(cache) == ["a", "b", "c"]
    assert size_of(cache) <= cache.limit
    assert cache.counts["kept"] == 3


def test_runs_at_the_same_time_exceed_the_bound_by_their_sixteenth_at_most(tmp_path, place):
    limit = 64 * (ENTRY + 128)
    runs = [FeatureCache(tmp_path / "cache", limit) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for number in range(100):
            for run, cache in enumerate(runs):
                cache.keep(place(f"{run}-{number}"), features(1))
    assert size_of(runs[0]) <= limit * (1 + 2 / 16)


def test_other_files_are_left_alone(tmp_path, place):
    (tmp_path / "cache" / "mine.safetensors").write_bytes(b"x" * 10**6)
    (tmp_path / "cache" / "way" / "notes.txt").write_bytes(b"x")
    cache = FeatureCache(tmp_path / "cache", limit=ENTRY + 128)
    cache.keep(place("a"), features(1))
    FeatureCache(tmp_path / "cache", limit=ENTRY + 128).keep(place("b"), features(1))
    assert kept(cache) == ["b"]
    assert (tmp_path / "cache" / "mine.safetensors").is_file()
    assert (tmp_path / "cache" / "way" / "notes.txt").is_file()


def test_what_a_killed_run_left_is_removed_once_it_is_old(tmp_path, place):
    left, in_work = place(".a.0123"), place(".b.4567")
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

    monkeypatch.setattr("propagate.feature_cache.save_file", full)
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
