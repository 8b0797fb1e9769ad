"""Opening a video, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from propagate.errors import InputError, UsageError
from propagate.files.documents import check_regular_file
from propagate.files.pictures import is_tiled_still
from propagate.types import Frame, FrameInfo
from propagate.video.decord_reader import DecordReader, decord_obstacle, import_decord
from propagate.video.folder import FolderReader
from propagate.video.listing import PLAIN_SUFFIXES
from propagate.video.pyav_reader import PyAVReader
from propagate.video.scan import Scan, scan
from propagate.video.selection import select

ReaderName = Literal["auto", "decord", "pyav", "folder"]


@runtime_checkable
class VideoReader(Protocol):
    """An iterable of frames that holds one of them (decord: one chunk) at a time and can be iterated again.

    Attributes:
        info: what is known before the frames are read; `info.count` is the number of frames that will come.
    """

    info: FrameInfo

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order of presentation."""
        ...


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
    """Opens a video file, a folder of pictures or one picture.

    Frames are uint8 RGB, upright as a player shows them (rotation metadata, edit lists and EXIF orientation are
    applied), each with its index in the source and its presentation time.

    Args:
        path: the file or folder. A picture (jpg, png, webp, tif, bmp) is a video of one frame.
        reader: "auto" takes PyAV for files. "decord" reads some as exactly, and does not tell of damaged frames.
        strict: a file that ends early or is damaged is an error. Otherwise what decodes is given and a
            `VideoEndsEarlyWarning` follows after the last frame.
        from_frame: first frame that is read, from 0.
        to_frame: first frame that is no longer read, as in `range`; None reads to the end.
        stride: every n-th frame is read, counted from `from_frame`.
        leave_out: pictures that are no frames if they lie in the folder, such as the mask of the first frame.

    Raises:
        InputError: the file is missing, not a video, without frames, or (strict) ends early; a folder without pictures
            or with pictures of several sizes; a file that decord, asked for by name, does not read exactly.
        UsageError: a reader that does not exist, is not installed or does not fit the path, or a selection outside
            the video.
    """
    path = Path(path)
    if reader not in get_args(ReaderName):
        raise UsageError(f"--reader {reader} does not exist.", f"Choose from {', '.join(get_args(ReaderName))}.")
    is_folder = _is_folder(path)
    is_still = not is_folder and (is_tiled_still(path) or path.suffix.lower() in PLAIN_SUFFIXES)
    if is_folder or is_still or reader == "folder":
        if is_folder and reader in ("decord", "pyav"):
            raise UsageError(f"--reader {reader} reads files and {path} is a folder.", "Use --reader auto or folder.")
        if not is_folder and not is_still:
            raise UsageError(f"--reader folder reads pictures and {path} is a file.", "Use --reader auto.")
        left_out = [Path(other) for other in leave_out]
        return FolderReader(path, from_frame=from_frame, to_frame=to_frame, stride=stride, leave_out=left_out)
    scanned = scan(path)
    chosen = select(scanned.count, path, from_frame, to_frame, stride)
    if strict:
        _refuse_damage(scanned, chosen, to_end=to_frame is None)
    if reader != "decord":
        return PyAVReader(scanned, chosen, strict=strict)
    _require_decord(scanned)
    return DecordReader(scanned, chosen, strict=strict)


def _is_folder(path: Path) -> bool:
    """Whether the path is a folder; where it is neither that nor a file, an InputError says so."""
    try:
        if path.is_dir():
            return True
    except (OSError, ValueError):  # a null character, for one: said by the check
        pass
    check_regular_file(path, "video")
    return False


def _refuse_damage(scanned: Scan, chosen: range, *, to_end: bool) -> None:
    """Refuse a file that the scan found to end early, or to lack data up to the last of the chosen frames."""
    cause = ""
    if to_end and scanned.broken:
        cause = f"is damaged behind frame {scanned.count - 1}"
    if scanned.damaged and (first := max(scanned.damaged[0] - scanned.undecodable_start, 0)) <= chosen[-1]:
        cause = f"is damaged: data are missing near frame {first}"
    if to_end and scanned.promised > scanned.count:
        cause = f"ends early: it promises {scanned.promised} frames and holds {scanned.count}"
    if cause:
        raise InputError(
            f"{scanned.path} {cause}.", "Copy it again from its source, or read what is there without strict."
        )


def _require_decord(scanned: Scan) -> None:
    if import_decord() is None:
        raise UsageError("--reader decord: decord is not installed.", "Install decord2, or use --reader auto.")
    if (obstacle := decord_obstacle(scanned)) is not None:
        raise InputError(
            f"{scanned.path} cannot be read exactly with decord: {obstacle}.", "Use --reader auto or pyav."
        )
