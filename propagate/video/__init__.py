"""Videos in, frames out: any clip, folder of pictures or iterable of arrays as a stream of `Frame`s."""

from __future__ import annotations

from propagate.video.arrays import frames_from_arrays
from propagate.video.pyav_reader import VideoEndsEarlyWarning, VideoTimesWarning
from propagate.video.reader import ReaderName, VideoReader, open_video

__all__ = [
    "ReaderName",
    "VideoEndsEarlyWarning",
    "VideoReader",
    "VideoTimesWarning",
    "frames_from_arrays",
    "open_video",
]
