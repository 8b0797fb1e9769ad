from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from propagate.errors import InputError
from propagate.files.lock import LOCK, locked


def test_a_second_run_is_refused_while_the_first_lasts(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(InputError, match="Another run") as caught, locked(tmp_path):
            pytest.fail("the block must not run")
        assert str(tmp_path) in caught.value.message
    with locked(tmp_path) as notes:
        assert notes == ()


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_folders_are_held_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with locked(tmp_path), locked(tmp_path / "inside"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, sys; from propagate.files.lock import locked\nwith locked(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="is a link"), locked(folder):
        pytest.fail("the block must not run")
    (folder / LOCK).unlink()
    os.link(tmp_path / "victim", folder / LOCK)
    with locked(folder):
        pass
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: FileLock, **_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(FileLock, "acquire", missing)
    with locked(tmp_path) as notes:
        assert "has no locks" in notes[0]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file"):
        pytest.fail("the block must not run")
