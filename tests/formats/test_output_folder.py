from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from propagate.errors import InputError, UsageError
from propagate.formats import prepare_output


def test_it_is_created_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = prepare_output(tmp_path / "a" / "b", overwrite=False)
    assert folder == tmp_path / "a" / "b"
    assert folder.is_dir()
    assert [p.name for p in folder.iterdir()] == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert prepare_output(tmp_path, overwrite=False) == tmp_path


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("old")
    with pytest.raises(UsageError, match="--overwrite") as caught:
        prepare_output(tmp_path, overwrite=False)
    assert str(tmp_path) in caught.value.message
    assert caught.value.exit_code == 2


def test_overwrite_takes_it_and_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("old")
    prepare_output(tmp_path, overwrite=True)
    assert (tmp_path / "run.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file") as caught:
        prepare_output(tmp_path / "out", overwrite=True)
    assert caught.value.exit_code == 3
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_among_its_parents(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file, not a folder"):
        prepare_output(tmp_path / "out" / "run", overwrite=False)


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only"), (errno.ENOSPC, "disk is full")]
)
def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    def refused(self: Path, data: bytes) -> int:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(InputError, match=said) as caught:
        prepare_output(tmp_path / "out", overwrite=False)
    assert str(tmp_path / "out") in caught.value.message
