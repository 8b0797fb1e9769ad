from __future__ import annotations

import errno
import itertools
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import pytest

from propagate.errors import InputError, UsageError
from propagate.formats import VideoWriter
from propagate.formats.video import VideoGapWarning

COLORS = [(200, 40, 40), (40, 180, 60), (50, 60, 200), (220, 220, 210), (20, 20, 20)]


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), COLORS[number % len(COLORS)], np.uint8)


def write(
    path: Path, times: list[float | None], height: int = 48, width: int = 64, rate: float | Fraction = 25
) -> None:
    with VideoWriter(path, rate) as video:
        for number, time_s in enumerate(times):
            video.write(picture(number, height, width), time_s)


def decoded(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    return [float(frame.time) for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_every_frame_comes_back_in_order_at_its_time(tmp_path: Path, count: int) -> None:
    write(tmp_path / "v.mp4", [None] * count)
    times, frames = decoded(tmp_path / "v.mp4")
    assert times == pytest.approx([i / 25 for i in range(count)], abs=1e-5)
    for number, frame in enumerate(frames):
        np.testing.assert_allclose(frame.reshape(-1, 3).mean(0), COLORS[number % len(COLORS)], atol=4)


def test_uneven_times_are_kept_from_the_first_one_on(tmp_path: Path) -> None:
    times = [7.5, 7.54, 7.6, 8.4, 8.44, 9.0]
    write(tmp_path / "v.mp4", [*times])
    assert decoded(tmp_path / "v.mp4")[0] == pytest.approx([t - 7.5 for t in times], abs=1e-4)


def test_frames_without_time_follow_at_the_rate(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [3.0, None, 3.5, None])
    assert decoded(tmp_path / "v.mp4")[0] == pytest.approx([0, 0.04, 0.5, 0.54], abs=1e-4)
    write(tmp_path / "w.mp4", [None, None, 9.0, 9.5])
    assert decoded(tmp_path / "w.mp4")[0] == pytest.approx([0, 0.04, 0.08, 0.58], abs=1e-4)


def test_times_that_stand_still_lose_no_frame(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [0.0, 0.04, 0.04, 0.02, 0.08])
    times, _ = decoded(tmp_path / "v.mp4")
    assert len(times) == 5
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert times[-1] == pytest.approx(0.08, abs=1e-4)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 23.976, 29.97, 60, 1])
def test_no_drift_at_any_rate(tmp_path: Path, rate: float | Fraction) -> None:
    write(tmp_path / "v.mp4", [None] * 50, rate=rate)
    times, _ = decoded(tmp_path / "v.mp4")
    assert times[-1] == pytest.approx(49 / float(rate), rel=1e-4)
    with av.open(tmp_path / "v.mp4") as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(float(rate), rel=1e-3)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 64), (48, 63), (47, 63), (1, 1)])
def test_it_is_what_browsers_play(tmp_path: Path, height: int, width: int) -> None:
    write(tmp_path / "v.mp4", [None] * 3, height, width)
    with av.open(tmp_path / "v.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
        assert stream.frames == 3
        assert "mp4" in container.format.name
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_an_odd_size_is_padded_with_its_edge(tmp_path: Path) -> None:
    left_to_right = np.linspace(20, 220, 63).astype(np.uint8)
    pixels = np.repeat(np.repeat(left_to_right[None, :, None], 47, 0), 3, 2)
    with VideoWriter(tmp_path / "v.mp4", 25, crf=1) as video:
        video.write(pixels)
    _, (frame,) = decoded(tmp_path / "v.mp4")
    np.testing.assert_allclose(frame[:47, :63].astype(int), pixels, atol=4)
    np.testing.assert_allclose(frame[:, 63].astype(int), 220, atol=4)
    np.testing.assert_allclose(frame[47].astype(int), frame[46], atol=4)


def test_colors_are_tagged_as_they_are_coded(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [None])
    with av.open(tmp_path / "v.mp4") as container:
        context = container.streams.video[0].codec_context
        # ITU-T H.273: 1 is BT.709 in all three; FFmpeg's 1 is limited range.
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    assert tags == (1, 1, 1, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_an_interrupted_video_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "v.mp4"
    write(path, [None] * 3)
    before = path.read_bytes()
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def interrupted(path: Path, error: BaseException) -> None:
    with VideoWriter(path, 25) as video:
        video.write(picture(0))
        video.write(picture(1))
        assert path.stat().st_size > 0
        raise error


def test_nothing_stands_at_the_path_before_the_end(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 25) as video:
        video.write(picture(0))
        assert not (tmp_path / "v.mp4").exists()
    assert (tmp_path / "v.mp4").exists()


def test_no_frame_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no frame"):
        write(tmp_path / "v.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_size_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="from 64x48 to 32x24"):
        changing_size(tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def changing_size(path: Path) -> None:
    with VideoWriter(path, 25) as video:
        video.write(picture(0))
        video.write(picture(1, 24, 32))


class FullDisk:
    """A container whose packets find no place."""

    def __init__(self, container: av.container.OutputContainer) -> None:
        self._container = container

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def add_stream(self, *arguments: object, **options: object) -> object:
        return self._container.add_stream(*arguments, **options)

    def mux(self, packets: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_video_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = av.open
    monkeypatch.setattr(av, "open", lambda *arguments, **options: FullDisk(opened(*arguments, **options)))
    with pytest.raises(InputError, match=r"v\.mp4 cannot be written: the disk is full"):
        write(tmp_path / "v.mp4", [None] * 3)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_said_before_the_first_frame(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"), VideoWriter(tmp_path / "nowhere" / "v.mp4", 25):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_none(tmp_path: Path, rate: float) -> None:
    with pytest.raises(UsageError, match="frame rate"):
        VideoWriter(tmp_path / "v.mp4", rate)


def test_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.mp4"):
        VideoWriter(tmp_path / "v.avi", 25)


def test_gaps_that_mp4_cannot_hold_are_shortened_and_said(tmp_path: Path) -> None:
    day = 86_400.0
    with pytest.warns(VideoGapWarning, match="1800 s"):
        write(tmp_path / "v.mp4", [0.0, 0.04, day, day + 0.04, 3 * day], rate=1 / day)
    assert decoded(tmp_path / "v.mp4")[0] == pytest.approx([0, 0.04, 1.04, 1.08, 2.08], abs=1e-3)


def test_long_gaps_that_it_can_hold_are_kept_beyond_32_bits_of_ticks(tmp_path: Path) -> None:
    times = [1700.0 * number for number in range(20)]
    write(tmp_path / "v.mp4", [*times], rate=1 / 1700)
    assert decoded(tmp_path / "v.mp4")[0] == pytest.approx(times, abs=1e-3)


def test_a_hundred_thousand_frames_per_second(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [number / 100_000 for number in range(20)], rate=100_000)
    assert decoded(tmp_path / "v.mp4")[0] == pytest.approx([number / 100_000 for number in range(20)], abs=1e-6)


def test_times_that_are_no_numbers_follow_at_the_rate(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [float("nan"), float("inf"), float("nan")])
    assert decoded(tmp_path / "v.mp4")[0] == pytest.approx([0, 0.04, 0.08], abs=1e-4)


@pytest.mark.parametrize("name", ["12:30", "2026-11-28T12:30:05", "http:x", "C:\\x"])
def test_a_colon_in_a_relative_path_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    write(Path(name) / "v.mp4", [None, None])
    assert len(decoded(tmp_path / name / "v.mp4")[1]) == 2


def test_a_side_that_h264_does_not_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"16384.* 17000x48"):
        write(tmp_path / "v.mp4", [None], width=17_000)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "w.mp4", [None], width=16_384)
