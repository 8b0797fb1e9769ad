"""Facts in a picture file that Pillow does not report: bit depth, compression, late metadata."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

# AV1 configuration: marker and version, profile and level, then bits for the tier, "more than 8" and "12"
_AV1_CONFIGURATION = re.compile(rb"av1C\x81.(.)", re.DOTALL)
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type")


def avif_bits(file: BinaryIO) -> int:
    """Return the bits per channel of an AVIF, the maximum over its items: 8, 10 or 12."""
    file.seek(0)
    flags = [found[0] for found in _AV1_CONFIGURATION.findall(file.read())]
    return max((8 if not flag & 0x40 else 12 if flag & 0x20 else 10 for flag in flags), default=8)


def lossy_compression(image: Any, file: BinaryIO) -> str:
    """Return the name of a compression that may have changed colors; empty for an exact one. AVIF may be either."""
    if image.format in ("JPEG", "MPO", "AVIF"):
        return str(image.format)
    if image.format == "WEBP":
        return "lossy WEBP" if _is_lossy_webp(file) else ""
    compression = image.info.get("compression")
    return f"TIFF compressed as {compression}" if image.format == "TIFF" and compression in _LOSSY_TIFF else ""


def _is_lossy_webp(file: BinaryIO) -> bool:
    place = 12
    while True:
        file.seek(place)
        start = file.read(8)
        if len(start) < 8 or start[:4] == b"VP8L":
            return False
        if start[:4] == b"VP8 ":
            return True
        length = struct.unpack("<4xI", start)[0]
        place += 8 + length + length % 2


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and length of the data of each chunk of a PNG."""
    place = 8
    while True:
        file.seek(place)
        start = file.read(8)
        if len(start) < 8:
            return
        length, name = struct.unpack(">I4s", start)
        yield name, place + 8, length
        place += 12 + length


def is_turned_late(file: BinaryIO) -> bool:
    """Return whether a PNG may have its orientation after its pixels, where Pillow finds it only after decoding."""
    late = False
    for name, place, _ in png_chunks(file):
        late = late or name == b"IDAT"
        file.seek(place)
        is_text = name in (b"tEXt", b"zTXt", b"iTXt") and file.read(20).startswith(_ORIENTATION_TEXTS)
        if late and (is_text or name == b"eXIf"):
            return True
    return False
