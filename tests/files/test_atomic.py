from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from propagate.errors import InputError
from propagate.files.atomic import atomic_path


def fail_halfway(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


def test_the_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_the_temporary_file_is_hidden_in_the_same_folder_and_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "clip.mp4") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".mp4"
        assert temporary.exists()


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(1)])
def test_an_older_file_survives_a_failure_and_nothing_else_is_left(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(type(error)):
        fail_halfway(path, error)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_with_the_path(tmp_path: Path, code: int) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(InputError, match="disk is full") as caught:
        fail_halfway(path, OSError(code, os.strerror(code)))  # as a failed write() raises it: without a name
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert [p.name for p in tmp_path.iterdir()] == []


def test_no_permission_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(InputError, match="Permission denied") as caught, atomic_path(tmp_path / "x.png"):
        pytest.fail("the block must not run")
    assert str(tmp_path / "x.png") in caught.value.message


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"), atomic_path(tmp_path / "file" / "x.png"):
        pytest.fail("the block must not run")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"), atomic_path(tmp_path / "nowhere" / "x.png"):
        pytest.fail("the block must not run")


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match="directory"), atomic_path(tmp_path / "x.png"):
        pytest.fail("the block must not run")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_an_error_about_another_file_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x.png"):
        (tmp_path / "input.txt").read_text()
    assert [p.name for p in tmp_path.iterdir()] == []
