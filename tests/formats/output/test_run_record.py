from __future__ import annotations

import errno
import hashlib
import json
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.errors import InputError
from propagate.formats import settings_hash, write_run_record

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_it_reads_back_with_keys_sorted(tmp_path: Path) -> None:
    path = write_run_record(tmp_path, {"b": {"y": 1, "x": [1, 2]}, "a": "é"})
    assert path == tmp_path / "run.json"
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"a": "é", "b": {"x": [1, 2], "y": 1}}
    assert text.index('"a"') < text.index('"b"') < text.index('"x"') < text.index('"y"')
    assert "é" in text


def test_values_of_the_program_become_json(tmp_path: Path) -> None:
    record = {"path": Path("a") / "b", "n": np.int64(3), "v": np.array([1.5, 2.5]), "rate": Fraction(1, 3), "t": (1, 2)}
    frozen = {"ids": frozenset({3, 1, 2}), "inner": MappingProxyType({"a": 1})}
    read = json.loads(write_run_record(tmp_path, {**record, **frozen}).read_text())
    assert read == {
        "path": str(Path("a/b")),
        "n": 3,
        "v": [1.5, 2.5],
        "rate": "1/3",
        "t": [1, 2],
        "ids": [1, 2, 3],
        "inner": {"a": 1},
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    write_run_record(tmp_path, {"a": 1})
    with pytest.raises((TypeError, ValueError)):
        write_run_record(tmp_path, {"a": value})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"run\.json cannot be written: the disk is full"):
        write_run_record(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == []


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_hash_does_not_depend_on_the_order_of_keys(record: dict[str, object]) -> None:
    backwards = dict(reversed(record.items()))
    assert settings_hash(record) == settings_hash(backwards)
    assert settings_hash(record) != settings_hash({**record, "one more": 1, "another": 2})


def test_the_hash_is_sha256_of_canonical_json() -> None:
    canonical = '{"a":1,"b":[true,null],"c":"é"}'
    assert settings_hash({"b": [True, None], "c": "é", "a": 1}) == hashlib.sha256(canonical.encode()).hexdigest()
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})
    assert settings_hash({"a": [1, 2]}) != settings_hash({"a": [2, 1]})
