"""Files that are not what they promise: cut off, damaged, edited, lying."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import av
import pytest

from propagate.errors import InputError
from propagate.video import VideoEndsEarlyWarning, open_video
from tests.video.clips import (
    COUNT,
    RATE,
    cut_after,
    damage,
    joined_sizes,
    places,
    read_number,
    set_avi_length,
    set_edit_list,
    write_clip,
)

PLAIN = {"g": "8", "bf": "0", "x264-params": "scenecut=0"}
FAST = {"movflags": "faststart"}


def _read(path: Path, **options: Any) -> tuple[list[tuple[int, int]], list[str]]:
    """(index, number) of the frames, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = [(frame.index, read_number(frame.pixels)) for frame in open_video(path, **options)]
    assert all(issubclass(warning.category, VideoEndsEarlyWarning) for warning in caught)
    return frames, [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.mp4", {"options": PLAIN, "container_options": FAST}),
        ("a.mkv", {"options": PLAIN}),
        ("a.mkv", {"options": PLAIN, "audio": True}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ],
)
def test_a_truncated_file_gives_what_decodes_and_warns(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    path = cut_after(write_clip(tmp_path / name, **arguments), 14)
    frames, warned = _read(path)
    assert len(frames) in (13, 14)  # a Matroska cluster may take the packet at the cut with it
    assert frames == [(number, number) for number in range(len(frames))]
    assert warned == [f"{path} ends early or is damaged: {len(frames)} of the 24 frames promised could be decoded."]
    assert f"The file promises 24 frames and holds {len(frames)}." in open_video(path).info.notes
    with pytest.raises(InputError, match=f"promises 24 frames and holds {len(frames)}") as caught:
        open_video(path, strict=True)
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_a_selection_before_the_cut_is_whole(tmp_path: Path) -> None:
    path = cut_after(write_clip(tmp_path / "a.mp4", options=PLAIN, container_options=FAST), 14)
    for strict in (False, True):
        assert _read(path, to_frame=13, strict=strict) == ([(number, number) for number in range(13)], [])
    assert _read(path, to_frame=11, stride=5) == ([(0, 0), (5, 5), (10, 10)], [])


def test_a_truncated_transport_stream_gives_what_decodes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", options=PLAIN)
    # MPEG-TS has no header that could promise more: the cut is the end.
    path.write_bytes(path.read_bytes()[: places(path)[14][0]])
    frames, _ = _read(path)
    assert frames == [(number, number) for number in range(len(frames))]
    assert 12 <= len(frames) <= 14


@pytest.mark.parametrize("name", ["a.mp4", "a.flv", "a.nut", "a.asf", "a.mkv", "a.ts", "a.avi"])
def test_a_second_file_is_read_or_it_is_said(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, 12, options=PLAIN)
    said = "Another video is appended to this one and is not read."
    assert said not in " ".join(open_video(path).info.notes)
    path.write_bytes(path.read_bytes() * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoEndsEarlyWarning)
        count = len(list(open_video(path)))
    assert (said in " ".join(open_video(path).info.notes)) == (count < 24)


def test_of_several_videos_in_a_file_it_is_said_which_is_read(tmp_path: Path) -> None:
    source, path = write_clip(tmp_path / "a.mp4", 8, options=PLAIN), tmp_path / "two.mp4"
    assert not any("videos" in note for note in open_video(source).info.notes)
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        copies = [out.add_stream_from_template(given.streams.video[0]) for _ in range(2)]
        for packet in [packet for packet in given.demux(video=0) if packet.size]:
            for copy in copies:
                packet.stream = copy
                out.mux(packet)
    assert any("holds 2 videos" in note for note in open_video(path).info.notes)


def test_data_that_a_transport_stream_lacks_are_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", options=PLAIN)
    assert not any("Data are missing" in note for note in open_video(path).info.notes)
    offset = places(path)[10][0] // 188 * 188
    content = path.read_bytes()
    path.write_bytes(content[:offset] + content[offset + 2 * 188 :])
    video = open_video(path)
    assert any("Data are missing in 1 place of the file, the first near frame" in note for note in video.info.notes)
    with pytest.raises(InputError, match="is damaged: data are missing near frame 8"):
        open_video(path, strict=True)
    assert len(list(open_video(path, strict=True, to_frame=8))) == 8


def test_a_container_that_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.y4m", 12, codec="rawvideo")
    path.write_bytes(path.read_bytes() * 2)
    assert "The file is damaged behind frame 11; what follows cannot be read." in open_video(path).info.notes
    with pytest.raises(InputError, match="is damaged behind frame 11"):
        open_video(path, strict=True)
    assert len(list(open_video(path, strict=True, to_frame=11))) == 11


@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_damage_in_the_middle_leaves_a_gap_not_a_shift(tmp_path: Path, reader: Any) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", codec="mjpeg", pix_fmt="yuvj420p"), [10, 11])
    frames, warned = _read(path, reader=reader)
    assert frames == [(number, number) for number in range(COUNT) if number not in (10, 11)]
    assert warned == [f"{path} ends early or is damaged: 22 of the 24 frames promised could be decoded."]
    strict = open_video(path, reader=reader, strict=True)
    with pytest.raises(InputError, match="22 of the 24 frames"):
        list(strict)


@pytest.mark.parametrize("damaged", [3, 10, 20])
def test_h264_takes_up_again_at_the_next_keyframe(tmp_path: Path, damaged: int) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", options=PLAIN), [damaged])
    frames, warned = _read(path)
    next_key = (damaged // 8 + 1) * 8
    assert len(warned) == 1
    assert damaged not in [index for index, _ in frames]
    # Between the damage and the next keyframe the decoder patches the picture up with an older one.
    assert [pair for pair in frames if not damaged < pair[0] < next_key] == [
        (number, number) for number in range(COUNT) if not damaged <= number < next_key
    ]


def test_damage_outside_the_selection_does_not_matter(tmp_path: Path) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", codec="mjpeg", pix_fmt="yuvj420p"), [20])
    assert _read(path, to_frame=20, strict=True) == ([(number, number) for number in range(20)], [])


def test_an_edit_list_shows_what_a_player_shows(tmp_path: Path) -> None:
    for first, count in ((3, 15), (8, 16), (0, 10)):
        path = set_edit_list(write_clip(tmp_path / "a.mp4", options=PLAIN), first, count)
        video = open_video(path)
        frames, warned = _read(path)
        assert frames == [(number, first + number) for number in range(count)]
        assert warned == []
        assert (video.info.count, video.info.reader) == (count, "pyav")
        assert [frame.time_s for frame in video] == pytest.approx([number / RATE for number in range(count)])


def test_a_header_that_promises_too_much_is_said(tmp_path: Path) -> None:
    path = set_avi_length(write_clip(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p"), 30)
    frames, warned = _read(path)
    assert frames == [(number, number) for number in range(COUNT)]
    assert warned == [f"{path} ends early or is damaged: 24 of the 30 frames promised could be decoded."]


def test_a_header_that_promises_too_little_loses_nothing(tmp_path: Path) -> None:
    path = set_avi_length(write_clip(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p"), 10)
    assert _read(path) == ([(number, number) for number in range(COUNT)], [])


def test_a_reference_that_is_never_shown_is_no_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.webm", codec="libvpx")
    content = bytearray(path.read_bytes())
    offset, length = places(path)[10]
    body = content.index(bytes(content[offset : offset + length][-20:]), offset) + 20
    first_byte = next(i for i in range(offset, body) if content[i] & 0x11 == 0x11 and body - i <= length)
    content[first_byte] &= ~0x10  # show_frame (RFC 6386, 9.1)
    path.write_bytes(content)
    video = open_video(path)
    frames, warned = _read(path)
    assert [number for _, number in frames] == [number for number in range(COUNT) if number != 10]
    assert (video.info.count, warned) == (COUNT - 1, [])


@pytest.mark.parametrize("suffix", [".h264", ".mp4", ".mkv"])
def test_a_size_that_changes_midway_names_frame_and_sizes(tmp_path: Path, suffix: str) -> None:
    path = joined_sizes(tmp_path / f"a{suffix}", [(72, 128), (96, 160)], 10)
    frames = iter(open_video(path))
    assert [read_number(next(frames).pixels) for _ in range(10)] == list(range(10))
    with pytest.raises(InputError, match=r"frame 10 is 160x96, the frames before it are 128x72") as caught:
        next(frames)
    assert str(path) in caught.value.message
    assert caught.value.remedy
