"""Manifests and records that somebody edited or a disk damaged: refused, and nothing is removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from propagate.benchmarks.running.clip_folder import Run, clip_folder, write_record
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import load_method
from propagate.benchmarks.running.records import (
    MANIFEST,
    RECORD,
    ClipRecord,
    Manifest,
    read_manifest,
    read_record,
)
from propagate.errors import InputError, PropagateError, UsageError
from propagate.files.names import is_plain_name
from tests.benchmarks.running.squares import make_squares

LONG = "x" * 5000
NO_NAMES = ["", ".", "..", "../y.txt", "a/../../y.txt", "/etc/y", "a//b", "a/", "./a", "a\0b", LONG, "a\udcffb"]
NO_TEXTS = [None, 1, -1.5, True, [], {}, ["x"], {"x": "y"}]


@pytest.fixture
def out(tmp_path):
    """A folder with a finished clip "one" and a score, and beside it what nobody may touch."""
    squares = make_squares(tmp_path / "data", ("one",))
    folder = tmp_path / "out"
    place = Output(folder, ["rgb"])
    place.clear([folder / "one"])
    with clip_folder(folder / "one") as clip:
        (clip / "00000.png").write_bytes(b"mask")
        run = Run(frames=6, seconds=1.5, peak_memory=1000, threads=1)
        write_record(clip, load_method("rgb"), squares, squares.clips[0], run)
    place.register([folder / "scores.csv"])
    (folder / "scores.csv").write_text("a,b\n")
    (folder / "mine.txt").write_text("mine")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "y.txt").write_text("theirs")
    (tmp_path / "y.txt").write_text("theirs")
    return folder


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.parent.rglob("*"))}


def begin(out: Path, flag: str) -> None:
    """What an evaluation does before it runs anything, where the clip "one" is to be run."""
    Output(out, ["rgb"], **{flag: True}).clear([out / "one"])


def check_refused(out: Path, error: type[PropagateError] = InputError) -> None:
    before = tree(out)
    for flag in ("overwrite", "resume"):
        with pytest.raises(error):
            begin(out, flag)
        assert tree(out) == before


@pytest.mark.parametrize("name", NO_NAMES)
def test_only_plain_names_are_names(name):
    assert not is_plain_name(name)
    with pytest.raises(UsageError, match="cannot be stored under the name"):
        Output(Path("never made"), [name])


def test_plain_names_may_be_strange():
    assert all(map(is_plain_name, ("a b", "...", "..a", "-", "ü", "a\\b", "features.timestep=21,block=[1, 2]")))


def test_what_is_whole_is_removed(out):
    begin(out, "overwrite")
    assert not (out / "one").exists()
    assert not (out / "scores.csv").exists()
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [*NO_NAMES, MANIFEST, "one/00000.png"])
def test_a_manifest_that_names_no_plain_file_is_refused(out, name):
    edit(out / MANIFEST, files=["scores.csv", name])
    check_refused(out)


@pytest.mark.parametrize("name", [*NO_NAMES, "../victim"])
def test_a_manifest_that_names_no_plain_clip_is_refused(out, name):
    edit(out / MANIFEST, clips=["one", name])
    check_refused(out)


@pytest.mark.parametrize("key", ["methods", "at_top", "files", "clips"])
@pytest.mark.parametrize("value", [*NO_TEXTS, "text", [1, 2], [[1], [2]], {"": {}}])
def test_a_manifest_of_other_types_is_refused(out, key, value):
    if (key, value) in [("at_top", None), *((key, []) for key in ("methods", "files", "clips"))]:
        pytest.skip("a value that it may have")
    if key != "at_top" and value == ["x"]:
        pytest.skip("a name")
    edit(out / MANIFEST, **{key: value})
    check_refused(out)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"files": [-Infinity]}', b"[" * 100_000, b'{"a": 1e999}']
)
def test_a_manifest_that_is_none_is_refused(out, content):
    (out / MANIFEST).write_bytes(content)
    check_refused(out)


def test_a_manifest_that_is_a_link_or_a_pipe_is_refused(out):
    content = (out / MANIFEST).read_text()
    (out / MANIFEST).unlink()
    (out.parent / "elsewhere.json").write_text(content)
    (out / MANIFEST).symlink_to(out.parent / "elsewhere.json")
    check_refused(out)
    (out / MANIFEST).unlink()
    os.mkfifo(out / MANIFEST)
    with pytest.raises(InputError, match="pipe"):
        begin(out, "overwrite")


@pytest.mark.parametrize("name", [*NO_NAMES, "../../y.txt"])
def test_a_record_that_names_no_plain_file_is_refused(out, name):
    edit(out / "one" / RECORD, files={"00000.png": 4, name: 1})
    check_refused(out)


@pytest.mark.parametrize("key", ["files", "settings_hash", "input_hash", "digests"])
@pytest.mark.parametrize("value", [*NO_TEXTS, "18.1.0", {"00000.png": "4"}, {"00000.png": -4}])
def test_a_record_of_other_types_is_refused(out, key, value):
    if (key in ("files", "digests") and value == {}) or (
        key == "digests" and value in ({"x": "y"}, {"00000.png": "4"})
    ):
        pytest.skip("a value that it may have")
    if "hash" in key and isinstance(value, str):
        pytest.skip("a value that it may have")
    edit(out / "one" / RECORD, **{key: value})
    check_refused(out)


@pytest.mark.parametrize(
    "key", ["benchmark", "clip", "method", "settings", "frames", "seconds", "peak_memory", "threads"]
)
def test_a_clip_of_which_something_is_not_known_is_refused(out, key):
    path = out / "one" / RECORD
    content = json.loads(path.read_text())
    values = [-1, [], "a" * 400, False, 2**70] + ([0] if key == "frames" else [])
    for value in values:
        if (key, value) in [(name, "a" * 400) for name in ("benchmark", "clip", "method")]:
            continue
        path.write_text(json.dumps(content | {key: value}))
        with pytest.raises(InputError, match="damaged or was edited"):
            read_record(out / "one", ClipRecord)
    path.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
    with pytest.raises(InputError, match=f"damaged or was edited .{key}: Field required"):
        read_record(out / "one", ClipRecord)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "finished"}', '{"files": {}, "files": {"a": 1}}'])
def test_a_record_that_is_none_is_refused(out, content):
    (out / "one" / RECORD).write_text(content)
    check_refused(out)


def test_a_folder_without_a_record_is_somebody_elses(out):
    assert read_record(out / "nothing", ClipRecord) is None
    (out / "one" / RECORD).unlink()
    check_refused(out, UsageError)


def test_nothing_is_removed_through_a_link(out):
    victim = out.parent / "victim"
    (out / "link").symlink_to(victim)
    edit(out / MANIFEST, files=["link/y.txt"])
    check_refused(out)
    edit(out / MANIFEST, files=[], clips=["link"])
    (victim / RECORD).write_text(json.dumps({"files": {"y.txt": 6}, "settings_hash": "", "input_hash": ""}))
    check_refused(out)
    edit(out / MANIFEST, clips=["link/sub"])
    check_refused(out)
    edit(out / MANIFEST, clips=[])
    (out / "one" / "sub").symlink_to(victim)
    edit(out / "one" / RECORD, files={"00000.png": 4, "sub/y.txt": 6})
    check_refused(out)


def test_a_link_instead_of_a_file_is_removed_and_not_what_it_points_to(out):
    (out / "scores.csv").unlink()
    (out / "scores.csv").symlink_to(out.parent / "y.txt")
    begin(out, "overwrite")
    assert not (out / "scores.csv").is_symlink()
    assert (out.parent / "y.txt").read_text() == "theirs"


def test_a_folder_instead_of_a_file_is_refused(out):
    (out / "scores.csv").unlink()
    (out / "scores.csv").mkdir()
    check_refused(out)
    (out / "scores.csv").rmdir()
    (out / "one" / "00000.png").unlink()
    (out / "one" / "00000.png").mkdir()
    check_refused(out)


def test_nothing_is_written_through_a_link(out):
    (out / "plots").symlink_to(out.parent / "victim")
    with pytest.raises(InputError, match="plots is not a folder that an evaluation made"):
        Output(out, ["rgb"], resume=True).register([out / "plots" / "sequences.png"])


def test_a_manifest_says_what_was_written(out):
    assert read_manifest(out) == Manifest(methods=["rgb"], at_top="rgb", files=["scores.csv"], clips=["one"])
    assert read_manifest(out / "one") is None
