"""decord: when it is taken, how it is held on a short leash, and who takes over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from propagate.errors import InputError, UsageError
from propagate.video import VideoEndsEarlyWarning, open_video
from propagate.video import decord_reader as module
from propagate.video import reader as reader_module
from tests.video.clips import COUNT, joined_sizes, places, read_number, write_clip

decord = pytest.importorskip("decord")

CLOSED = {"g": "8", "bf": "2", "x264-params": "b-adapt=0"}
PIXELS = 72 * 128 * 3


class _Watched:
    """A decord whose calls are written down and which can be made to fail at one of them."""

    def __init__(self, fail_at: int = -1) -> None:
        self.calls: list[Any] = []
        self.DECORDError = decord.DECORDError
        self._fail_at = fail_at

    def VideoReader(self, path: str) -> Any:
        video = decord.VideoReader(path)

        def get_batch(numbers: list[int]) -> Any:
            if len([call for call in self.calls if call != "seek 0"]) == self._fail_at:
                raise decord.DECORDError("no more")
            self.calls.append(numbers)
            return video.get_batch(numbers)

        def seek(place: int) -> None:
            self.calls.append(f"seek {place}")
            video.seek(place)

        return SimpleNamespace(get_batch=get_batch, seek=seek)


def _opened(path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, fail_at: int = -1, **options: Any) -> Any:
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk * PIXELS)
    video = open_video(path, reader="decord", **options)
    watched = _Watched(fail_at)
    monkeypatch.setattr(module, "import_decord", lambda: watched)
    return video, watched


@pytest.mark.parametrize("chunk", [1, 5, 7, 8, COUNT, 100])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_chunks_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, name: str) -> None:
    video, _ = _opened(write_clip(tmp_path / name, options=CLOSED), monkeypatch, chunk)
    assert [read_number(frame.pixels) for frame in video] == list(range(COUNT))


def test_each_chunk_is_bounded_and_stops_decoding_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, watched = _opened(write_clip(tmp_path / "a.mp4", options=CLOSED), monkeypatch, 5, stride=2)
    list(video)
    assert watched.calls == [
        [0, 2, 4, 6, 8], "seek 0", [10, 12, 14, 16, 18], "seek 0", [20, 22], "seek 0",
    ]  # fmt: skip


def test_a_kept_frame_does_not_keep_its_chunk(tmp_path: Path) -> None:
    frame = next(iter(open_video(write_clip(tmp_path / "a.mp4", options=CLOSED), reader="decord")))
    assert frame.pixels.base is None
    assert frame.pixels.nbytes == PIXELS


@pytest.mark.parametrize("fail_at", [0, 2])
def test_pyav_takes_over_where_decord_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
    video, watched = _opened(write_clip(tmp_path / "a.mp4", options=CLOSED), monkeypatch, 5, fail_at, stride=2)
    assert [(f.index, read_number(f.pixels)) for f in video] == [(n, n) for n in range(0, COUNT, 2)]
    assert len([call for call in watched.calls if call != "seek 0"]) == fail_at


def test_decord_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "import_decord", lambda: None)
    with pytest.raises(UsageError, match="--reader decord: decord is not installed"):
        open_video(write_clip(tmp_path / "a.mp4", options=CLOSED), reader="decord")


def test_a_decord_that_does_not_load_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    assert module.import_decord() is None


def test_auto_takes_pyav_which_tells_of_damaged_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", options={"g": "8", "bf": "0", "x264-params": "scenecut=0"})
    assert any("does not report damaged frames" in note for note in open_video(path, reader="decord").info.notes)
    content, (start, length) = bytearray(path.read_bytes()), places(path)[9]
    content[start + length // 2 : start + length // 2 + 20] = range(100, 120)
    path.write_bytes(content)
    with pytest.warns(VideoEndsEarlyWarning, match="1 of the 24 frames decoded are damaged"):
        assert len(list(open_video(path))) == COUNT


@pytest.mark.parametrize(
    ("name", "arguments", "obstacle"),
    [
        ("a.ts", {}, "its container is mpegts"),
        ("a.mp4", {"codec": "mpeg4"}, "its codec is mpeg4"),
        ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, "its codec is hevc"),
        ("a.mp4", {"options": {**CLOSED, "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}}, "groups of pictures"),
        ("a.mp4", {"size": (64, 96)}, "narrower than 97 pixels"),
    ],
)
def test_decord_by_name_refuses_what_it_would_read_wrongly(
    tmp_path: Path, name: str, arguments: dict[str, Any], obstacle: str
) -> None:
    path = write_clip(tmp_path / name, **arguments)
    with pytest.raises(InputError, match=obstacle) as caught:
        open_video(path, reader="decord")
    assert str(path) in caught.value.message
    assert "--reader auto" in caught.value.remedy


def test_a_size_that_changes_and_changes_back_is_seen(tmp_path: Path) -> None:
    # decord would scale the frames in the middle to the size of the first.
    path = joined_sizes(tmp_path / "a.mkv", [(72, 128), (96, 160), (72, 128)], 8)
    assert decord.VideoReader(str(path)).get_batch([12]).asnumpy().shape == (1, 72, 128, 3)
    with pytest.raises(InputError, match="its frame size changes"):
        open_video(path, reader="decord")


def test_a_frame_that_decord_gives_wrongly_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", options=CLOSED)
    monkeypatch.setattr(module, "upright_pixels", lambda picture, orientation: np.zeros((72, 128, 3), np.uint8))
    with pytest.raises(InputError, match="decord and PyAV disagree on frame"):
        open_video(path, reader="decord")
