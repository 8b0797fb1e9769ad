"""Every frame of every kind of clip: the painted number is the index, the time is the one that was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from propagate.errors import InputError
from propagate.types import Frame
from propagate.video import ReaderName, open_video
from propagate.video.decord_reader import import_decord
from tests.video.clips import COUNT, RATE, read_grey_number, read_number, remux, write_clip

CLOSED = {"g": "8", "bf": "2", "x264-params": "b-adapt=0"}
OPEN = {"g": "8", "bf": "2", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
HEVC = {"x265-params": "log-level=none:keyint=8:open-gop=0:bframes=3:b-adapt=0"}
HEVC_OPEN = {"x265-params": "log-level=none:keyint=8:open-gop=1:bframes=3:b-adapt=0"}
UNEVEN = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 18, 19, 30, 31, 32, 33, 34, 40, 41, 42, 50, 51, 52, 53]
FAST = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
READERS: list[ReaderName] = ["pyav", "decord"] if import_decord() else ["pyav"]

# name: (file name, arguments of write_clip, whether decord reads it exactly)
CLIPS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "h264 constant rate": ("a.mp4", {"options": CLOSED}, True),
    "h264 mov": ("a.mov", {"options": CLOSED}, True),
    "h264 matroska": ("a.mkv", {"options": CLOSED}, True),
    "h264 flv": ("a.flv", {"options": CLOSED}, False),
    "h264 avi": ("a.avi", {"options": CLOSED}, False),
    "h264 variable rate": ("a.mp4", {"options": CLOSED, "ticks": UNEVEN}, True),
    "h264 variable rate matroska": ("a.mkv", {"options": CLOSED, "ticks": UNEVEN}, True),
    "h264 open gop": ("a.mp4", {"options": OPEN}, False),
    "h264 faststart": ("a.mp4", {"options": CLOSED, "container_options": FAST}, True),
    "h264 fragments": ("a.mp4", {"options": {"g": "8", "bf": "0"}, "container_options": FRAGMENTS}, True),
    "h264 with audio": ("a.mp4", {"options": CLOSED, "audio": True}, True),
    "h264 with audio matroska": ("a.mkv", {"options": CLOSED, "audio": True}, True),
    "h264 10 bit": ("a.mp4", {"options": CLOSED, "pix_fmt": "yuv420p10le"}, False),
    "h264 starts late": ("a.mp4", {"options": CLOSED, "ticks": range(50, 50 + COUNT)}, True),
    "h264 starts late matroska": ("a.mkv", {"options": CLOSED, "ticks": range(50, 50 + COUNT)}, True),
    "h264 odd size": ("a.mp4", {"size": (63, 127), "pix_fmt": "yuv444p"}, True),
    "h264 narrow": ("a.mp4", {"size": (64, 96)}, False),
    "h264 rotated 90": ("a.mp4", {"options": CLOSED, "rotation": 90}, True),
    "h264 rotated 180": ("a.mp4", {"options": CLOSED, "rotation": 180}, True),
    "h264 rotated 270": ("a.mp4", {"options": CLOSED, "rotation": 270}, True),
    "h264 rotated and mirrored": ("a.mp4", {"options": CLOSED, "rotation": 90, "hflip": True}, False),
    "h264 upper-case suffix, spaces, colon": ("ein Täst: ж.MP4", {"options": CLOSED}, True),
    "hevc": ("a.mp4", {"codec": "libx265", "options": HEVC}, False),
    "hevc matroska": ("a.mkv", {"codec": "libx265", "options": HEVC}, False),
    "hevc open gop": ("a.mp4", {"codec": "libx265", "options": HEVC_OPEN}, False),
    "vp8": ("a.webm", {"codec": "libvpx"}, False),
    "vp9": ("a.webm", {"codec": "libvpx-vp9"}, False),
    "vp9 odd size": ("a.mp4", {"codec": "libvpx-vp9", "size": (63, 127)}, False),
    "av1": ("a.mp4", {"codec": "libsvtav1"}, False),
    "av1 matroska": ("a.mkv", {"codec": "libsvtav1"}, False),
    "gif": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}, False),
    "mjpeg": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, False),
    "mjpeg mov": ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, False),
    "mpeg4 avi": ("a.avi", {"codec": "mpeg4", "options": {"bf": "2"}}, False),
    "mpeg4 mp4": ("a.mp4", {"codec": "mpeg4", "options": {"bf": "2"}}, False),
    "mpeg-ts": ("a.ts", {"options": CLOSED}, False),
    "mpeg2 ts": ("a.ts", {"codec": "mpeg2video", "options": {"bf": "2"}}, False),
    "elementary stream": ("a.h264", {"options": CLOSED}, False),
    "alpha": ("a.mkv", {"codec": "ffv1", "pix_fmt": "bgra"}, False),
    "one frame": ("a.mp4", {"count": 1}, True),
}


def numbers(frames: Iterable[Frame]) -> list[tuple[int, int]]:
    return [(frame.index, read_number(frame.pixels)) for frame in frames]


@pytest.fixture(params=CLIPS, ids=lambda name: name.replace(" ", "-"))
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any], bool]:
    name, arguments, by_decord = CLIPS[request.param]
    return write_clip(tmp_path / name, **arguments), arguments, by_decord


@pytest.mark.parametrize("reader", ["auto", "decord"])
def test_every_frame_is_the_right_one(clip: tuple[Path, dict[str, Any], bool], reader: Any) -> None:
    path, arguments, by_decord = clip
    if reader == "decord":
        pytest.importorskip("decord")
        if not by_decord:
            with pytest.raises(InputError, match="cannot be read exactly with decord"):
                open_video(path, reader=reader)
            return
    count = arguments.get("count", COUNT)
    video = open_video(path, reader=reader)
    frames = list(video)
    assert numbers(frames) == [(number, number) for number in range(count)]
    assert video.info.reader == ("pyav" if reader == "auto" else reader)
    assert video.info.count == count
    assert {frame.size for frame in frames} == {(video.info.height, video.info.width)}
    assert frames[0].size == arguments.get("size", (72, 128))

    written = np.array(arguments.get("ticks", range(count))) / RATE
    times = np.array([frame.time_s for frame in frames])
    # MPEG-TS and FLV start at a time of their own; a millisecond is what Matroska keeps.
    np.testing.assert_allclose(times - times[0], written - written[0], atol=0.001)
    if path.suffix.lower() in (".mp4", ".mov", ".mkv", ".avi") and "container_options" not in arguments:
        assert times[0] == pytest.approx(written[0], abs=0.001)
    if count > 1:
        assert video.info.rate == pytest.approx((count - 1) / (written[-1] - written[0]), rel=0.01)


def test_frames_come_again(tmp_path: Path) -> None:
    for reader in READERS:
        video = open_video(write_clip(tmp_path / "a.mp4", options=CLOSED), reader=reader)
        stopped_early = iter(video)
        next(stopped_early)
        assert numbers(video) == numbers(video) == [(number, number) for number in range(COUNT)]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"from_frame": 7}, range(7, COUNT)),
        ({"to_frame": 7}, range(7)),
        ({"stride": 5}, range(0, COUNT, 5)),
        ({"from_frame": 3, "to_frame": 20, "stride": 4}, range(3, 20, 4)),
        ({"from_frame": COUNT - 1}, [COUNT - 1]),
        ({"stride": 100}, [0]),
    ],
)
def test_selected_frames_keep_their_index(
    tmp_path: Path, reader: Any, options: dict[str, int], expected: Iterable[int]
) -> None:
    video = open_video(write_clip(tmp_path / "a.mp4", options=CLOSED), reader=reader, **options)
    frames = list(video)
    assert numbers(frames) == [(number, number) for number in expected]
    assert video.info.count == len(frames)
    assert [frame.time_s for frame in frames] == pytest.approx([number / RATE for number in expected])


def test_grey_video_becomes_rgb(tmp_path: Path) -> None:
    frames = list(open_video(write_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt="gray")))
    assert all(np.ptp(frame.pixels, axis=2).max() == 0 for frame in frames)
    bits = [read_grey_number(frame.pixels) for frame in frames]
    assert bits == list(range(COUNT))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_cut_without_its_keyframe_starts_where_decoding_can(tmp_path: Path, suffix: str) -> None:
    # The first packets belong to a keyframe that was cut off; the next keyframe is number 8.
    whole = write_clip(tmp_path / "whole.ts", options={"g": "8", "bf": "0", "x264-params": "scenecut=0"})
    video = open_video(remux(whole, tmp_path / f"cut{suffix}", keep=range(3, COUNT)))
    assert numbers(video) == [(number - 8, number) for number in range(8, COUNT)]
    assert video.info.count == COUNT - 8
    assert any("first 5 frames cannot be decoded" in note for note in video.info.notes)


def test_colors_are_the_same_in_both_readers(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "a.mp4", options={**CLOSED, "colorspace": "bt709", "color_range": "tv"})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == av.video.reformatter.Colorspace.ITU709
    for ours, theirs in zip(open_video(path, reader="decord"), open_video(path, reader="pyav"), strict=True):
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        assert ours.time_s == theirs.time_s
