"""H.264 video that browsers play."""

from __future__ import annotations

import math
import warnings
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8
from numpy import ndarray

from propagate.errors import InputError, PropagateWarning, UsageError
from propagate.files.atomic import atomic_path

# MPEG's clock: a frame of the usual rates, 24000/1001 and 30000/1001 included, is a whole number of its ticks.
_CLOCK = 90_000
_FASTEST = 1000  # frames per second at which that clock still resolves uneven times; above, use a finer one
_MOST_TICKS = 2**31 - 1  # in a second and, because H.264 reorders frames, in a handful of gaps
_LONGEST_GAP = 1800 * _CLOCK
_LONGEST_SIDE = 16_384
_BT709 = 1  # in all three tables of ITU-T H.273: primaries, transfer, matrix


class VideoGapWarning(PropagateWarning):
    """A gap between two frames was too long for mp4, and is one second in the video."""


class VideoWriter:
    """A context manager that writes an mp4 atomically.

    H.264, yuv420p (the only chroma format that all browsers decode), tagged as BT.709, with the index at the front, so
    that playback starts before the file is loaded. An odd width or height, impossible in yuv420p, is made even by
    repeating the last column or row.

        with VideoWriter("out/overlay.mp4", rate=25) as video:
            for frame in frames:
                video.write(frame.pixels, frame.time_s)

    Args:
        path: the file to write; must end in .mp4.
        rate: frames per second, for frames without a time.
        crf: x264's constant rate factor, 0 (lossless) to 51; 20 is visually close to the source.
        preset: x264's trade of speed for size.

    Raises:
        UsageError: the suffix is not .mp4, or the rate is not positive.
        InputError: the file cannot be written, no frame was written, or the frame size changes.
    """

    def __init__(self, path: str | Path, rate: float | Fraction, *, crf: int = 20, preset: str = "veryfast") -> None:
        self._path = Path(path)
        if self._path.suffix.lower() != ".mp4":
            raise UsageError(f"The video {path} does not end in .mp4.", "mp4 is the format that is written.")
        if not 0 < rate <= _FASTEST * (_MOST_TICKS // _CLOCK):
            raise UsageError(f"{rate} is not a frame rate for mp4.", "Give the frames per second.")
        self._clock = _CLOCK * max(1, math.ceil(rate / _FASTEST))
        self._longest_gap_s = Fraction(_LONGEST_GAP, self._clock)
        # gaps at lower rates are shortened anyway
        self._rate = Fraction(rate).limit_denominator(1001) if rate > 1 / self._longest_gap_s else Fraction(1)
        # x264's default would make memory and bytes depend on the number of cores
        self._options = {"crf": str(crf), "preset": preset, "threads": "4"}
        self._stack = ExitStack()
        self._stream: av.VideoStream | None = None
        self._size = (0, 0)
        self._origin_s: float | None = None  # the source's time of the first frame
        self._elapsed_s = Fraction(0)
        self._removed_s = Fraction(0)  # from gaps that were too long
        self._pts = -1

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            # absolute: FFmpeg takes a relative `a:b` for a protocol
            target, options = str(temporary.absolute()), {"movflags": "+faststart"}
            self._container = stack.enter_context(av.open(target, "w", format="mp4", container_options=options))
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def write(self, pixels: UInt8[ndarray, "h w 3"], time_s: float | None = None) -> None:
        """Add a frame (H, W, 3) uint8 RGB; InputError for another size than the first frame's.

        `time_s` is its presentation time in seconds, rising. The video starts at the first one and keeps the gaps, even
        or not; a gap above half an hour, which not every mp4 can store, becomes one second with a `VideoGapWarning`.
        None or not finite: one frame after the last.
        """
        height, width, _ = pixels.shape
        if self._stream is None:
            self._stream = self._add_stream(height, width)
        elif (height, width) != self._size:
            raise InputError(
                f"The frames of {self._path} change size from {self._size[1]}x{self._size[0]} to {width}x{height}.",
                "A video has one size: cut it where it changes.",
            )
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        self._pts = self._next_pts(time_s)
        frame.pts, frame.time_base = self._pts, Fraction(1, self._clock)
        self._container.mux(self._stream.encode(frame))

    def _add_stream(self, height: int, width: int) -> av.VideoStream:
        if max(height, width) > _LONGEST_SIDE:
            raise InputError(
                f"{self._path} cannot be written: x264 takes no side above {_LONGEST_SIDE}, and a frame is "
                f"{width}x{height}.",
                "Choose smaller frames.",
            )
        self._size = (height, width)
        stream = self._container.add_stream("libx264", rate=self._rate, options=dict(self._options))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, self._clock)
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        return stream

    def _next_pts(self, time_s: float | None) -> int:
        """Return the ticks since the first frame, at least one after the last frame, as mp4 demands."""
        if time_s is not None and not math.isfinite(time_s):
            time_s = None
        if self._pts < 0:
            self._origin_s = time_s
            return 0
        before = self._elapsed_s
        if time_s is None:
            self._elapsed_s += 1 / self._rate
        else:
            if self._origin_s is None:  # the first frame with a time comes one frame after the last
                self._origin_s = time_s - float(before + 1 / self._rate)
            self._elapsed_s = Fraction(time_s - self._origin_s) - self._removed_s
        if (gap := self._elapsed_s - before) > self._longest_gap_s:
            self._removed_s += gap - 1
            self._elapsed_s = before + 1
            message = f"Gaps in time of more than {float(self._longest_gap_s):g} s are 1 s in {self._path.name}."
            warnings.warn(message, VideoGapWarning, stacklevel=3)
        return max(self._pts + 1, round(self._elapsed_s * self._clock))

    def _finish(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        if self._stream is None:
            raise InputError(f"{self._path} was not written: there is no frame.", "Check the range of frames.")
        self._container.mux(self._stream.encode(None))

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
