"""Write the sample clips as H.264 that every browser and reader plays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av

from propagate.files.atomic import atomic_path


def write_clip(target: Path, frames: Iterable[av.VideoFrame], rate: Fraction, crf: int) -> int:
    """Write H.264, yuv420p, constant rate, with the index before the data, and return the number of frames.

    With one thread and a fixed preset, the same frames and libx264 give the same bytes. Both sides of the frames are
    even. `crf` is the quality of libx264, lower is better; at 18 the loss is nearly invisible.
    """
    count = 0
    with (
        atomic_path(target) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        options = {"crf": str(crf), "preset": "veryslow", "threads": "1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        for count, frame in enumerate(frames, start=1):
            if count == 1:
                stream.width, stream.height = frame.width, frame.height
            picture = frame.reformat(format="yuv420p")
            picture.pts, picture.time_base = count - 1, 1 / rate
            # The source's picture types would otherwise be imposed on the encoder.
            picture.pict_type = av.video.frame.PictureType.NONE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return count
