from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from propagate.errors import InputError, UsageError
from propagate.files.atomic import atomic_path
from propagate.files.lock import LOCK
from propagate.formats import held_output, prepare_output


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


def leave(path: Path) -> Path:
    """What a killed run leaves of a file: its temporary one, as it stands halfway."""
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        kept = temporary.read_bytes()
    path.unlink()
    temporary.write_bytes(kept)
    return temporary


def test_what_killed_runs_left_is_removed_and_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("overlay.mp4", "confidence.csv", "masks/00000.png", "no suffix", f"{'long' * 30}.json"):
        leave(tmp_path / name)
    (tmp_path / LOCK).touch()
    with held_output(tmp_path, overwrite=False):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [LOCK, "masks"]
    assert [path.name for path in tmp_path.rglob("*")] == ["masks"]


def test_what_is_not_surely_a_leftover_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    others = [leave(out / "mine" / "a.png")]
    for name in (".bashrc", ".overlay.1234abcd.mp4", ".a.1234567.propagate.png", "a.12345678.propagate.png"):
        (out / name).touch()
        others.append(out / name)
    ours = leave(out / "run.json")
    link = ours.with_name(ours.name.replace(".run.", ".link."))
    link.symlink_to(others[0])
    with held_output(out, overwrite=True):
        pass
    assert not ours.exists()
    assert all(path.exists() for path in [*others, link])


def test_a_folder_that_is_being_written_is_refused_even_to_overwrite(tmp_path: Path) -> None:
    with held_output(tmp_path, overwrite=False):
        (tmp_path / "run.json").touch()
        for overwrite in (False, True):
            with pytest.raises(InputError, match="Another run"), held_output(tmp_path, overwrite=overwrite):
                pytest.fail("the block must not run")


def test_the_trial_of_writing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".write-test").symlink_to(tmp_path / "victim")
    prepare_output(tmp_path / "out", overwrite=True)
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "out" / ".write-test").is_symlink()


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    for place in (tmp_path / "out", tmp_path / "out" / "run"):
        with pytest.raises(InputError, match=f"{tmp_path / 'out'} is a link to something that does not exist"):
            prepare_output(place, overwrite=False)


def test_nothing_is_written_through_a_folder_of_results_that_is_a_link(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "masks").symlink_to(elsewhere)
    left = leave(elsewhere / "b.png")
    with pytest.raises(InputError, match="masks is a link"), held_output(out, overwrite=True):
        pass
    assert left.exists()
