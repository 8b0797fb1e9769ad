"""Why a file is not a video."""

from __future__ import annotations

from pathlib import Path

from propagate.errors import InputError
from propagate.files.documents import check_regular_file

_CONVERT = "Convert it with `ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4` or give a folder of pictures."


def check_file(path: Path) -> None:
    """Check before FFmpeg opens a file: missing, a pipe or device, no permission, empty or text is an InputError."""
    check_regular_file(path, "video")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    if not head:
        raise InputError(f"{path} is empty (0 bytes).", "Copy or record it again.")
    if _is_text(head) and not head.startswith(b"YUV4MPEG2"):
        raise InputError(f"{path} is a text file, not a video.", "Give a video file or a folder of pictures.")


def unreadable(path: Path, cause: str) -> InputError:
    """Return the error for a file that FFmpeg does not open."""
    boxes = _top_level_boxes(path)
    if "ftyp" in boxes and "moov" not in boxes:
        return InputError(
            f"{path} is an MP4 without its index (the moov atom is missing): recording or copying stopped too early.",
            "Copy it again from its source, or rebuild the index with a tool such as untrunc.",
        )
    return InputError(f"{path} is not a video that FFmpeg can read: {cause}.", _CONVERT)


def no_video(path: Path, has_audio: bool) -> InputError:
    """Return the error for a file without a moving picture."""
    remedy = "Give a file with a video stream." if has_audio else _CONVERT
    return InputError(f"{path} has no video{', only audio' if has_audio else ' stream'}.", remedy)


def no_frames(path: Path, codec: str) -> InputError:
    """Return the error for a video without a frame that decodes."""
    return InputError(f"{path} has a video stream ({codec}) of which no frame can be decoded.", _CONVERT)


def is_joined(path: Path, start: int) -> bool:
    """Return whether another file is appended: the file's own first bytes occur again after `start`."""
    with path.open("rb") as file:
        head, before = file.read(12), b""
        file.seek(max(start, len(head)))
        while chunk := file.read(2**20):
            if head in before + chunk:
                return True
            before = chunk[1 - len(head) :]
    return False


def _is_text(head: bytes) -> bool:
    # FFmpeg would play a text file as terminal art. The cut may have split the last character: try without it.
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    for cut in range(min(4, len(head))):
        try:
            head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return True
    return False


def _top_level_boxes(path: Path) -> list[str]:
    """Return the types of an MP4's outermost boxes (ISO/IEC 14496-12, 4.2); arbitrary strings for other files."""
    boxes: list[str] = []
    file_size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start + 8 <= file_size and len(boxes) < 1000:
            file.seek(start)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            boxes.append(header[4:8].decode("latin-1"))
            if size == 1:  # a 64-bit size follows the type
                size = int.from_bytes(header[8:16], "big")
            if size < 8:  # 0: to the end of the file
                break
            start += size
    return boxes
