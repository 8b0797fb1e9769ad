"""Open a video file, a folder of pictures or one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from propagate.errors import InputError, UsageError
from propagate.files.documents import check_regular_file
from propagate.files.pictures import is_tiled_still
from propagate.types import Frame, FrameInfo
from propagate.video.decord_reader import DecordReader, decord_obstacle, import_decord
from propagate.video.folder import FolderReader
from propagate.video.listing import PLAIN_SUFFIXES, list_pictures
from propagate.video.pyav_reader import PyAVReader
from propagate.video.scan import Scan, scan

ReaderName = Literal["auto", "decord", "pyav", "folder"]


@runtime_checkable
class VideoReader(Protocol):
    """An iterable of frames in order of presentation that holds one frame at a time and can be iterated again.

    decord holds one chunk. `info.count` is the number of chosen frames. Iterating raises an `InputError` where the
    frame size changes, a picture is incomplete or, if strict, the file turns out to be damaged.
    """

    info: FrameInfo

    def __iter__(self) -> Iterator[Frame]: ...


def open_video(
    path: str | Path,
    *,
    reader: ReaderName = "auto",
    strict: bool = False,
    from_frame: int = 0,
    to_frame: int | None = None,
    stride: int = 1,
    leave_out: Sequence[str | Path] = (),
) -> VideoReader:
    """Open a video file, a folder of pictures or one picture.

    Frames are uint8 RGB, upright as a player shows them (rotation metadata, edit lists and EXIF orientation are
    applied), each with its index in the source and its presentation time.

    Args:
        path: the file or folder. A picture (jpg, png, webp, tif, bmp) is a video of one frame.
        reader: "auto" uses PyAV for files. "decord" reads some as exactly, and does not report damaged frames.
        strict: raise an error if the file ends early or is damaged. Otherwise frames that decode are yielded, and a
            `VideoEndsEarlyWarning` follows the last one.
        from_frame, to_frame, stride: the frames to read, as in `range`; `to_frame=None` reads to the end.
        leave_out: pictures in the folder that are not frames, such as the mask of the first frame.

    Raises:
        InputError: the file is missing, not a video, without frames, or (strict) ends early; a folder without pictures
            or with pictures of several sizes; a file that decord, if requested, does not read exactly.
        UsageError: an unknown or missing reader, one for another kind of source, or a selection outside the video.
    """
    path = Path(path)
    if reader not in get_args(ReaderName):
        raise UsageError(f"--reader {reader} does not exist.", f"Choose from {', '.join(get_args(ReaderName))}.")
    is_folder = False
    with suppress(OSError, ValueError):  # such as a null character: reported by the check
        is_folder = path.is_dir()
    if not is_folder:
        check_regular_file(path, "video")
    is_still = not is_folder and (is_tiled_still(path) or path.suffix.lower() in PLAIN_SUFFIXES)
    if is_folder or is_still or reader == "folder":
        if is_folder and reader in ("decord", "pyav"):
            raise UsageError(f"--reader {reader} reads files and {path} is a folder.", "Use --reader auto or folder.")
        if not is_folder and not is_still:
            raise UsageError(f"--reader folder reads pictures and {path} is a file.", "Use --reader auto.")
        pictures, notes = [path], ["A single picture is read as a video of one frame."]
        if is_folder:
            pictures, notes = list_pictures(path, [Path(other) for other in leave_out])
        return FolderReader(path, pictures, select(len(pictures), path, from_frame, to_frame, stride), notes)
    scanned = scan(path)
    chosen = select(scanned.count, path, from_frame, to_frame, stride)
    if strict:
        _refuse_damage(scanned, chosen, to_end=to_frame is None)
    if reader != "decord":
        return PyAVReader(scanned, chosen, strict=strict)
    if import_decord() is None:
        raise UsageError("--reader decord: decord is not installed.", "Install decord2, or use --reader auto.")
    if (obstacle := decord_obstacle(scanned)) is not None:
        raise InputError(f"{path} cannot be read exactly with decord: {obstacle}.", "Use --reader auto or pyav.")
    return DecordReader(scanned, chosen, strict=strict)


def select(count: int, source: Path, from_frame: int, to_frame: int | None, stride: int) -> range:
    """Return the numbers of the frames to read out of `count`, never empty; UsageError if there are none."""
    has = f"{source} has {count} frame{'s' if count != 1 else ''}"
    if stride < 1:
        raise UsageError(f"--stride {stride} is not a step forward.", "Give 1 for every frame, 2 for every other.")
    if not 0 <= from_frame < count:
        raise UsageError(f"--from-frame {from_frame} is outside the video: {has}.", f"Give 0 to {count - 1}.")
    stop = count if to_frame is None else to_frame
    if stop > count:
        raise UsageError(f"--to-frame {to_frame} is outside the video: {has}.", f"Give at most {count}.")
    if stop <= from_frame:
        raise UsageError(
            f"--to-frame {to_frame} leaves nothing after --from-frame {from_frame}: {has}.",
            f"Give {from_frame + 1} to {count}; the frame --to-frame itself is not read.",
        )
    return range(from_frame, stop, stride)


def _refuse_damage(scanned: Scan, chosen: range, *, to_end: bool) -> None:
    cause = ""
    if to_end and scanned.broken:
        cause = f"is damaged behind frame {scanned.count - 1}"
    if scanned.damaged and (first := max(scanned.damaged[0] - scanned.undecodable_start, 0)) <= chosen[-1]:
        cause = f"is damaged: data are missing near frame {first}"
    if to_end and scanned.promised > scanned.count:
        cause = f"ends early: it promises {scanned.promised} frames and holds {scanned.count}"
    if cause:
        remedy = "Copy it again from its source, or read what is there without strict."
        raise InputError(f"{scanned.path} {cause}.", remedy)
