"""Which frames of a video are read."""

from __future__ import annotations

from pathlib import Path

from propagate.errors import UsageError


def select(count: int, source: Path, from_frame: int, to_frame: int | None, stride: int) -> range:
    """The numbers of the frames to read, never empty; `to_frame` itself is not one of them.

    Args:
        count: number of frames the video has, at least 1.
        source: the video, for the message.
        from_frame, to_frame, stride: as in `range`; `to_frame=None` reads to the end.

    Raises:
        UsageError: the selection is empty or reaches outside the video.
    """
    has = f"{source} has {count} frame{'s' if count != 1 else ''}"
    if stride < 1:
        raise UsageError(f"--stride {stride} is not a step forward.", "Give 1 for every frame, 2 for every other.")
    if not 0 <= from_frame < count:
        raise UsageError(f"--from-frame {from_frame} is outside the video: {has}.", f"Give 0 to {count - 1}.")
    if to_frame is None:
        return range(from_frame, count, stride)
    if to_frame > count:
        raise UsageError(f"--to-frame {to_frame} is outside the video: {has}.", f"Give at most {count}.")
    if to_frame <= from_frame:
        raise UsageError(
            f"--to-frame {to_frame} leaves nothing after --from-frame {from_frame}: {has}.",
            f"Give {from_frame + 1} to {count}; the frame --to-frame itself is not read.",
        )
    return range(from_frame, to_frame, stride)
