from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from propagate.benchmarks.running.clip_folder import (
    Run,
    clip_folder,
    differences,
    foreign_files,
    input_hash,
    is_complete,
    remove_clip,
    remove_unfinished,
    write_record,
)
from propagate.benchmarks.running.methods import load_method
from propagate.benchmarks.running.records import ClipRecord, read_record
from propagate.errors import InputError
from tests.benchmarks.running.squares import make_squares


@pytest.fixture
def squares(tmp_path):
    return make_squares(tmp_path / "data", ("one", "deep/two"))


def finished(squares, folder: Path, *overrides: str, clip: int = 0) -> Path:
    with clip_folder(folder) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "00000.png").write_bytes(b"mask")
        (temporary / "sub" / "more.csv").write_text("a,b\n")
        run = Run(frames=6, seconds=1.5, peak_memory=1000, threads=1, notes=("a warning",))
        write_record(temporary, load_method("rgb", overrides), squares, squares.clips[clip], run)
    return folder


def test_a_finished_folder_says_how_it_was_made(squares, tmp_path):
    record = read_record(finished(squares, tmp_path / "out" / "one"), ClipRecord)
    content = json.loads((tmp_path / "out" / "one" / "run.json").read_text())
    assert content["status"] == "finished"
    assert record.files == {"00000.png": 4, "sub/more.csv": 4}
    assert (record.frames, record.seconds, record.threads) == (6, 1.5, 1)
    assert record.settings_hash == load_method("rgb").settings_hash
    assert record.input_hash == input_hash(squares, squares.clips[0])
    assert {"torch", "propagate"} <= content["versions"].keys()
    assert differences(record, load_method("rgb"), squares, squares.clips[0]) == []


def test_nothing_has_the_name_before_it_is_finished(tmp_path):
    folder = tmp_path / "new" / "one"
    run = ExitStack()
    (run.enter_context(clip_folder(folder)) / "00000.png").write_bytes(b"half")
    assert not folder.exists()
    assert run.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_run_left_is_known_by_its_name(tmp_path):
    folder = tmp_path / "[one]"
    with clip_folder(folder) as temporary:
        killed = temporary.with_name(temporary.name + "x")
        killed.mkdir()
        (killed / "00000.png").write_bytes(b"half")
        others = tmp_path / ".one.unfinished.y"
        others.mkdir()
    remove_unfinished(folder)
    assert sorted(tmp_path.iterdir()) == [others, folder]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), clip_folder(tmp_path / "file" / "one"):
        pass


def test_differences_name_every_key_then_and_now(squares, tmp_path):
    record = read_record(
        finished(squares, tmp_path / "one", "propagation.top_k=3", "labels.masks.encode=blend"), ClipRecord
    )
    assert differences(record, load_method("rgb", ["propagation.temperature=0.2"]), squares, squares.clips[0]) == [
        "labels.masks.encode: blend -> area",
        "propagation.temperature: 0.1 -> 0.2",
        "propagation.top_k: 3 -> 5",
    ]


def test_an_extractor_of_other_options_is_a_difference_of_keys(squares, tmp_path):
    record = read_record(finished(squares, tmp_path / "one"), ClipRecord)
    found = differences(record, load_method("compact"), squares, squares.clips[0])
    assert "features.name: rgb -> compact" in found
    assert "features.timestep: not set -> 51" in found


def test_other_pictures_and_labels_are_a_difference(squares, tmp_path):
    record = read_record(finished(squares, tmp_path / "one"), ClipRecord)
    picture = squares.clips[0].pictures[2]
    picture.write_bytes(squares.clips[1].pictures[2].read_bytes())
    (change,) = differences(record, load_method("rgb"), squares, squares.clips[0])
    assert change.startswith("pictures or first label of one: ")


def test_the_input_is_known_by_its_content_alone(squares, tmp_path):
    before = input_hash(squares, squares.clips[0])
    for picture in squares.clips[0].pictures:
        picture.touch()
    assert input_hash(squares, squares.clips[0]) == before != input_hash(squares, squares.clips[1])
    squares.clips[0].pictures[1].unlink()
    with pytest.raises(InputError, match=r"00001.png cannot be read"):
        input_hash(squares, squares.clips[0])


def test_other_settings_are_a_difference_even_where_none_can_be_named(squares, tmp_path):
    record = read_record(finished(squares, tmp_path / "one"), ClipRecord)
    other = replace(load_method("rgb"), settings_hash="0123456789abcdef")
    (change,) = differences(record, other, squares, squares.clips[0])
    assert change.endswith("-> 0123456789ab")


def test_lost_and_foreign_files(squares, tmp_path):
    folder = finished(squares, tmp_path / "one")
    record = read_record(folder, ClipRecord)
    assert is_complete(folder, record)
    assert foreign_files(folder, record) == []
    (folder / "note.txt").write_text("mine")
    assert is_complete(folder, record)
    assert foreign_files(folder, record) == ["note.txt"]
    (folder / "loop").symlink_to(folder)
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    assert foreign_files(folder, record) == ["gone", "loop", "note.txt", "pipe"]
    for content in (b"ma", b"MASK"):
        (folder / "00000.png").write_bytes(content)
        assert not is_complete(folder, record)
    (folder / "00000.png").unlink()
    assert not is_complete(folder, record)


def test_removal_takes_what_the_record_names_and_nothing_else(squares, tmp_path):
    folder = finished(squares, tmp_path / "one")
    (folder / "note.txt").write_text("mine")
    remove_clip(folder, read_record(folder, ClipRecord))
    assert [path.name for path in folder.iterdir()] == ["note.txt"]
    whole = finished(squares, tmp_path / "two")
    remove_clip(whole, read_record(whole, ClipRecord))
    assert not whole.exists()
