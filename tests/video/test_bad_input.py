"""Paths that are no video: the error names the file and the cause, and says what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from propagate.errors import InputError, UsageError
from propagate.video import open_video
from tests.video.clips import COUNT, damage, places, read_number, write_audio_only, write_clip


def _moov_missing(path: Path) -> None:
    write_clip(path)
    offset, length = places(path)[-1]
    path.write_bytes(path.read_bytes()[: offset + length])


def _nothing_decodes(path: Path) -> None:
    damage(write_clip(path), range(COUNT))


def _unknown_codec(path: Path) -> None:
    write_clip(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzz"))


MAKE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.mp4", lambda path: None, "does not exist"),
    "empty": ("a.mp4", lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "text": ("a.txt", lambda path: path.write_text("a poem\n" * 40), "is a text file"),
    "text, not ASCII": ("a.mp4", lambda path: path.write_text("ü" * 1023, encoding="utf-8"), "is a text file"),
    "playlist": ("a.m3u8", lambda path: path.write_text("#EXTM3U\nhttp://localhost/a.ts\n"), "is a text file"),
    "noise": ("a.mp4", lambda path: path.write_bytes(bytes(range(256)) * 20), "is not a video that FFmpeg can read"),
    "audio only": ("a.m4a", write_audio_only, "has no video, only audio"),
    "moov missing": ("a.mp4", _moov_missing, "without its index"),
    "unknown codec": ("a.mp4", _unknown_codec, r"\(unknown codec\) of which no frame can be decoded"),
    "no frame decodes": ("a.mp4", _nothing_decodes, r"\(h264\) of which no frame can be decoded"),
}


@pytest.mark.parametrize("reader", ["auto", "pyav", "decord"])
@pytest.mark.parametrize("kind", MAKE)
def test_what_is_no_video(tmp_path: Path, kind: str, reader: Any) -> None:
    name, make, cause = MAKE[kind]
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError, match=cause) as caught:
        open_video(path, reader=reader)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert caught.value.exit_code == 3


def test_a_header_without_packets_has_no_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[: places(path)[0][0] - 20])
    with pytest.raises(InputError, match=r"a\.mkv") as caught:
        open_video(path)
    assert caught.value.remedy


def test_an_unknown_reader(tmp_path: Path) -> None:
    wrong: Any = "opencv"
    # The type checker of the tests would stop a wrong literal before the function sees it.
    unchecked = getattr(open_video, "__wrapped__", open_video)
    with pytest.raises(UsageError, match="--reader opencv does not exist") as caught:
        unchecked(tmp_path, reader=wrong)
    assert "pyav" in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from_frame": COUNT}, f"--from-frame {COUNT} is outside the video: .* has {COUNT} frames"),
        ({"from_frame": -1}, "--from-frame -1 is outside"),
        ({"to_frame": COUNT + 1}, f"--to-frame {COUNT + 1} is outside the video: .* has {COUNT} frames"),
        ({"from_frame": 5, "to_frame": 5}, "--to-frame 5 leaves nothing after --from-frame 5"),
        ({"stride": 0}, "--stride 0"),
    ],
)
def test_a_selection_outside_the_video(tmp_path: Path, options: dict[str, int], message: str) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match=message) as caught:
        open_video(path, **options)
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_readers_that_do_not_fit_the_path(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match=r"--reader folder reads pictures and .*a\.mp4 is a file"):
        open_video(path, reader="folder")
    with pytest.raises(UsageError, match=r"--reader pyav reads files and .* is a folder"):
        open_video(tmp_path, reader="pyav")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_names_that_are_not_utf8(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    write_clip(tmp_path / f"a{suffix}").rename(path)
    video = open_video(path)
    assert [read_number(frame.pixels) for frame in video] == list(range(COUNT))
    assert (video.info.reader, video.info.source) == ("pyav", str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"caf\\xe9\.\w+ is empty"):
        open_video(path)


@pytest.mark.parametrize("name", ["a\0b.mp4", "a" * 300 + ".mp4", "a\0b.png"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        open_video(tmp_path / name)
