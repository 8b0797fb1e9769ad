from __future__ import annotations

import json
import os

import pytest

from propagate.errors import WeightsError
from propagate.features.networks import local_files as weight_digests
from propagate.features.networks.local_files import file_digest, fingerprint


@pytest.fixture(autouse=True)
def remembered(tmp_path, monkeypatch):
    """Where digests are remembered, as if by another process each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_digests, "_known", {})
    monkeypatch.setattr(weight_digests, "_SETTLED_NS", -(10**18))
    return tmp_path / "cache" / "dift-propagate" / "digests.json"


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    counted = []
    digest = weight_digests.hashlib.file_digest
    monkeypatch.setattr(
        weight_digests.hashlib, "file_digest", lambda file, kind: counted.append(file.name) or digest(file, kind)
    )
    return counted


def test_every_byte_counts(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\0" * 20_000_000)
    before = file_digest(path)
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(12_345_678)
        file.write(b"\1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the times of change stay different
    assert file_digest(path) != before


def test_a_file_is_read_once_also_by_other_processes(tmp_path, reads, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"a")
    one = file_digest(tmp_path / "a.bin")
    assert file_digest(tmp_path / "a.bin") == one
    monkeypatch.setattr(weight_digests, "_known", {})
    assert file_digest(tmp_path / "a.bin") == one
    assert len(reads) == 1


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, reads, monkeypatch, remembered):
    monkeypatch.setattr(weight_digests, "_SETTLED_NS", 10**18)
    (tmp_path / "a.bin").write_bytes(b"a")
    assert file_digest(tmp_path / "a.bin") == file_digest(tmp_path / "a.bin")
    assert len(reads) == 2
    assert not remembered.exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "x"}', '{"format": "propagate digests 1", "digests": {"a": 3}}']
)
def test_what_was_damaged_is_remembered_anew(tmp_path, remembered, text):
    remembered.parent.mkdir(parents=True)
    remembered.write_text(text, encoding="utf-8")
    (tmp_path / "a.bin").write_bytes(b"a")
    digest = file_digest(tmp_path / "a.bin")
    assert list(json.loads(remembered.read_text())["digests"].values()) == [digest]


def test_names_and_order_count(tmp_path):
    for name, content in {"a": b"1", "b": b"2", "c": b"1"}.items():
        (tmp_path / name).write_bytes(content)
    one, two, three = (tmp_path / name for name in "abc")
    assert len({fingerprint((one, two)), fingerprint((two, one)), fingerprint((three, two))}) == 3


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "."])
def test_what_cannot_be_read_is_an_error_of_the_weights(tmp_path, name):
    with pytest.raises(WeightsError, match="is not a readable weight file"):
        file_digest(tmp_path / name)
