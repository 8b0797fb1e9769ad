"""What the packets tell."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from propagate.video import open_video
from propagate.video.decoding import Orientation
from propagate.video.scan import scan
from tests.video.clips import COUNT, RATE, joined_sizes, paint, set_edit_list, write_clip

PLAIN = {"g": "8", "bf": "0", "x264-params": "scenecut=0"}
B_FRAMES = {"g": "8", "bf": "2", "x264-params": "b-adapt=0:scenecut=0"}
OPEN = {"g": "8", "bf": "2", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_count_times_keyframes(tmp_path: Path, name: str) -> None:
    found = scan(write_clip(tmp_path / name, options=B_FRAMES))
    assert (found.codec, found.width, found.height) == ("h264", 128, 72)
    assert (found.count, found.promised, found.keyframes) == (COUNT, COUNT, (0, 8, 16))
    assert found.times == pytest.approx([number / RATE for number in range(COUNT)], abs=0.001)
    assert found.rate == RATE
    assert found.constant
    assert (found.orientation, found.edited, found.open_gop) == (Orientation(), False, False)
    assert found.notes() == ()


def test_b_frames_are_decoded_from_negative_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", options=B_FRAMES)
    with av.open(str(path)) as container:
        assert next(container.demux(video=0)).dts < 0
    assert scan(path).times[0] == 0


def test_variable_rate_is_said(tmp_path: Path) -> None:
    found = scan(write_clip(tmp_path / "a.mp4", 4, options=PLAIN, ticks=[0, 1, 5, 6]))
    assert not found.constant
    assert found.rate == pytest.approx(3 / (6 / RATE))
    assert "The frame rate varies; 12.5 per second is the average" in found.notes()[0]


def test_milliseconds_of_matroska_are_no_variable_rate(tmp_path: Path) -> None:
    found = scan(write_clip(tmp_path / "a.mkv", options=PLAIN, time_base=Fraction(1, 30)))
    assert found.constant
    assert found.rate == pytest.approx(30, rel=0.01)


@pytest.mark.parametrize(("options", "is_open"), [(OPEN, True), (B_FRAMES, False), (PLAIN, False)])
def test_open_groups_of_pictures(tmp_path: Path, options: dict[str, str], is_open: bool) -> None:
    assert scan(write_clip(tmp_path / "a.mp4", options=options)).open_gop is is_open


def test_edit_lists(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", options=PLAIN)
    assert not scan(path).edited
    found = scan(set_edit_list(path, 3, 15))
    assert (found.edited, found.count, found.promised) == (True, 15, 15)


@pytest.mark.parametrize("arguments", [{"rotation": 90}, {"rotation": 270}, {"rotation": 90, "hflip": True}])
def test_size_is_after_rotation(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = write_clip(tmp_path / "a.mp4", options=PLAIN, **arguments)
    found = scan(path)
    assert (found.width, found.height, found.orientation.transpose) == (128, 72, True)
    with av.open(str(path)) as container:
        stored = container.streams.video[0]
        assert (stored.width, stored.height) == (72, 128)


def test_an_elementary_stream_has_no_times_of_its_own(tmp_path: Path) -> None:
    found = scan(joined_sizes(tmp_path / "a.h264", [(72, 128)], 10))
    assert found.pts is None
    assert found.times == pytest.approx([number / RATE for number in range(10)])


def test_pixels_that_are_not_square_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 72, 128, "yuv420p"
        stream.sample_aspect_ratio = Fraction(4, 3)
        for number in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(paint(number), "rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode())
    assert scan(path).notes() == ("Pixels are 4/3 times as wide as high; frames are given as stored.",)


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mkv"
    with av.open(str(path), "w") as out:
        art = out.add_stream("mjpeg", rate=1)
        art.height, art.width, art.pix_fmt = 72, 128, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        video = out.add_stream("libx264", rate=RATE)
        video.height, video.width, video.pix_fmt = 96, 160, "yuv420p"
        out.mux(art.encode(av.VideoFrame.from_ndarray(paint(63), "rgb24").reformat(format="yuvj420p")))
        out.mux(art.encode())
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(paint(number, (96, 160)), "rgb24").reformat(format="yuv420p")
            out.mux(video.encode(picture))
        out.mux(video.encode())
    frames = list(open_video(path))
    assert len(frames) == 10
    assert frames[0].size == (96, 160)


def test_tags_that_are_not_utf8_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Uebung"
        stream = out.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 72, 128, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(paint(0)), "rgb24")))
        out.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Uebung", b"\xdcebung"))
    assert open_video(path).info.count == 1
