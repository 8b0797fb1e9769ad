"""Presentation times that are wrong: every frame is given, counted, and it is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from propagate.errors import InputError
from propagate.video import VideoTimesWarning, open_video
from propagate.video.packets import Packets, times_rise
from propagate.video.scan import scan
from tests.video.clips import COUNT, RATE, damage, read_number, write_clip

CLOSED = {"g": "8", "bf": "2", "x264-params": "b-adapt=0:scenecut=0"}
HEVC = {"x265-params": "log-level=none:keyint=8:open-gop=0:bframes=3:b-adapt=0"}
SAID = "missing, repeated or out of order. Frames are counted in the order of display and timed at"


def _retimed(source: Path, path: Path, change: Callable[[list[int]], Sequence[int]]) -> Path:
    """Copies a clip's packets with other presentation times: of the list in decoding order, in frames from 0."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        copy = out.add_stream_from_template(stream)
        tick = round(1 / (RATE * stream.time_base))
        frames = [round(packet.pts / tick) for packet in packets]
        for number, (packet, time) in enumerate(zip(packets, change(frames), strict=True)):
            packet.stream = copy
            packet.pts, packet.dts = (time + 40) * tick, number * tick
            out.mux(packet)
    return path


def _numbers(path: Path, **options: Any) -> list[tuple[int, int]]:
    return [(frame.index, read_number(frame.pixels)) for frame in open_video(path, **options)]


CHANGES: dict[str, Callable[[list[int]], Sequence[int]]] = {
    "in decoding order": lambda frames: range(len(frames)),
    "one repeated": lambda frames: [10 if frame == 11 else frame for frame in frames],
    "all equal": lambda frames: [5] * len(frames),
    "restart": lambda frames: [frame - 10 if frame >= 16 else frame for frame in frames],
    "two exchanged": lambda frames: [{9: 10, 10: 9}.get(frame, frame) for frame in frames],
    "backward": lambda frames: [len(frames) - frame for frame in frames],
}

SOURCES: dict[str, dict[str, Any]] = {
    "h264": {"options": CLOSED},
    "hevc": {"codec": "libx265", "options": HEVC},
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("source", SOURCES)
def test_every_frame_is_given_whatever_the_times(tmp_path: Path, source: str, change: str) -> None:
    path = tmp_path / "a.mkv"
    _retimed(write_clip(tmp_path / "source.mkv", **SOURCES[source]), path, CHANGES[change])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        video = open_video(path)
        frames = list(video)
    assert [(frame.index, read_number(frame.pixels)) for frame in frames] == [(n, n) for n in range(COUNT)]
    assert video.info.count == COUNT
    times = np.array([frame.time_s for frame in frames])
    assert (np.diff(times) > 0).all()
    said = any(SAID in note for note in video.info.notes)
    if (source, change) == ("mjpeg", "in decoding order"):  # which is that of display
        assert not said
        return
    assert said or [warning.category for warning in caught] == [VideoTimesWarning]
    if said:
        np.testing.assert_allclose(times, np.arange(COUNT) / video.info.rate)


@pytest.mark.parametrize("source", ["mpeg4", "mpeg2"])
def test_a_first_frame_with_the_latest_time_hides_no_other(tmp_path: Path, source: str) -> None:
    original = write_clip(tmp_path / "source.mkv", 12, **SOURCES[source])
    path = _retimed(original, tmp_path / "a.mkv", lambda frames: [30, *range(len(frames) - 1)])
    assert _numbers(path) == [(n, n) for n in range(12)]
    assert any(SAID in note for note in open_video(path).info.notes)


@pytest.mark.parametrize("change", ["in decoding order", "two exchanged"])
def test_decord_does_not_read_wrong_times(tmp_path: Path, change: str) -> None:
    source = write_clip(tmp_path / "source.mp4", options=CLOSED)
    path = _retimed(source, tmp_path / "a.mp4", CHANGES[change])
    with pytest.raises(InputError, match="its presentation times do not rise"):
        open_video(path, reader="decord")


def test_joined_transport_streams_whose_times_overlap(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.ts", 12, options=CLOSED)
    second = write_clip(tmp_path / "b.ts", 12, options=CLOSED, ticks=range(3, 15), first_number=12)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    video = open_video(path)
    assert _numbers(path) == [(n, n) for n in range(COUNT)]
    assert _numbers(path, from_frame=10, stride=3) == [(n, n) for n in range(10, COUNT, 3)]
    assert video.info.count == COUNT
    assert any(SAID in note for note in video.info.notes)


@pytest.mark.parametrize("start", [2**33 - 40 * 3600, 2**33 - 10 * 3600])
def test_times_of_a_transport_stream_that_wrap(tmp_path: Path, start: int) -> None:
    ticks = [start // 3600 + n for n in range(COUNT)]
    path = write_clip(tmp_path / "a.ts", options=CLOSED, ticks=ticks)
    assert _numbers(path) == [(n, n) for n in range(COUNT)]
    times = scan(path).times
    np.testing.assert_allclose(np.diff(times), 1 / RATE, atol=1e-4)


def test_missing_times_are_left_to_decoding() -> None:
    packets = Packets(pts=[0, 2, None], keys=[True, False, False], ends=[0, 0, 0])
    assert times_rise(packets, reorders=True, holds_back=True) is None
    assert times_rise(packets, reorders=False, holds_back=False) is False


def test_a_stream_without_times_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.h264", options=CLOSED)
    assert any(SAID in note for note in open_video(path).info.notes)


def test_damage_is_a_gap_where_packets_are_in_order(tmp_path: Path) -> None:
    path = damage(write_clip(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p"), [10, 11])
    with pytest.warns(UserWarning, match="22 of the 24 frames"):
        assert _numbers(path) == [(n, n) for n in range(COUNT) if n not in (10, 11)]
