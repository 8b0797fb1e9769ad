"""Check annotated frames against the frames that are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from numpy import ndarray

from propagate.errors import InputError, UsageError
from propagate.settings import Settings
from propagate.types import Frame, FrameInfo, Keypoints, Label, Mask


def check_anchors(anchors: Label | Mapping[int, Label], frames: Iterable[Any]) -> None:
    """Check that annotated frames will be read, as far as the indices are known (of a reader or a sequence). See
    `track`.

    Raises UsageError if one will not be read, or there is none.
    """
    if isinstance(anchors, Mask | Keypoints):
        return
    if not anchors:
        raise UsageError("There are no anchors.", "Give the first frame's mask or keypoints.")
    info = getattr(frames, "info", None)
    if isinstance(info, FrameInfo):
        known: Collection[int] | None = info.indices
    elif isinstance(frames, Sequence | ndarray):
        known = {frame.index if isinstance(frame, Frame) else number for number, frame in enumerate(frames)}
    else:
        known = None
    if known is not None and (unread := sorted(set(anchors) - set(known))):
        raise not_read(unread)


def not_read(frames: Sequence[int]) -> UsageError:
    """Return the error for annotated frames that are not read."""
    listed = ", ".join(map(str, frames))
    subject = f"Frames {listed} are" if len(frames) > 1 else f"Frame {listed} is"
    return UsageError(
        f"{subject} annotated and not among the frames that are read.",
        "Check --from-frame, --to-frame and --stride and the length of the video, or leave the annotation out.",
    )


def anchors_by_index(anchors: Label | Mapping[int, Label], first: Frame) -> Mapping[int, Label]:
    """Return the anchors in the order of their frames. Raises UsageError if the first frame has none."""
    if isinstance(anchors, Mask | Keypoints):
        return {first.index: anchors}
    if first.index not in anchors:
        raise UsageError(
            f"The first frame, {first.index}, has no mask or keypoints; there are some for {sorted(anchors)}.",
            "Start at an annotated frame with --from-frame.",
        )
    return dict(sorted(anchors.items()))


def check_label(label: Label, index: int, size: tuple[int, int], settings: Settings) -> None:
    """Check that a label fits its frame of this index and (height, width). Raises InputError otherwise."""
    frame = f"frame {index} is {size[1]}x{size[0]}"
    if isinstance(label, Mask):
        if label.size == size:
            return
        raise InputError(
            f"The mask is {label.size[1]}x{label.size[0]}, {frame}.",
            "Export it at the video's size, or scale it with --resize-mask.",
        )
    outside = [name for name, out in zip(label.names, label.outside(size), strict=True) if out]
    if outside and settings.labels.keypoints.codec != "jhmdb":  # jhmdb draws the part that reaches into the frame
        raise InputError(
            f"Joints lie outside the frame: {', '.join(outside)}; {frame}.",
            "Give x and y in pixels of the frame, or NaN for both if a joint is absent.",
        )
