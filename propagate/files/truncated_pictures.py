"""Pictures with missing pixels, or with values above their highest one: Pillow fills or clips them silently.

Pillow raises an error for a truncated stream of pixels. For a complete stream that is shorter than the header says (a
height that is too large, a file that was repaired after a cut), it does not in PNG, JPEG, GIF and TIFF.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image

from propagate.files.picture_containers import png_chunks

_EARLY = "its pixels end before the height in its header"
_BLOCK = 1 << 20
_FILL = 91
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's color types
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_TIFF_STRIPS = ((273, 279), (324, 325))  # tags of the offsets and byte counts of strips, and of tiles
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR, _TIFF_JPEG_TABLES = 258, 262, 284, 347
_FAX = ("tiff_ccitt", "group3", "group4", "tiff_raw_16")


def load_whole(image: Any, file: BinaryIO) -> None:
    """Decode a picture that Pillow opened; OSError for fewer pixels or higher values than the header says."""
    if image.format == "TIFF":
        _check_tiff(image, file)
    if image.format == "PPM" and image.tile[0][0] == "ppm":  # the text form is checked by Pillow
        _check_highest(image, file)
    if image.format == "GIF" and "transparency" not in image.info:
        _check_cover(image, "it covers only a part of its canvas")
    interlaced = bool(image.info.get("interlace"))
    fill = 1 if image.mode == "1" else _FILL
    if image.format == "PNG":
        # Missing rows keep the memory's initial value. Black last rows are frequent, so fill it with another value.
        bands = len(image.getbands())
        image.im = Image.new(image.mode, image.size, (fill,) * bands if bands > 1 else fill).im
    image.load()
    # Inflating is most of the work of decoding: repeat it only where rows may be missing.
    if image.format == "PNG" and (interlaced or (_corner(image, image.width, 1) == fill).all()):
        file.seek(0)
        if not _has_all_rows(file):
            raise OSError(_EARLY)
    # Decoders fill missing blocks with gray: look at a corner inside the last 8x8 block.
    sides = (min(max((side - 1) % 8, 1), 4) for side in image.size)
    if image.format in ("JPEG", "MPO") and np.isin(_corner(image, *sides), (127, 128)).all():
        file.seek(0)
        if not _is_whole_jpeg(file.read()):
            raise OSError(_EARLY)


def _corner(image: Any, width: int, height: int) -> np.ndarray:
    return np.asarray(image.crop((image.width - width, image.height - height, image.width, image.height)))


def _has_all_rows(file: BinaryIO) -> bool:
    """Return whether the pixels of a PNG inflate to the number of bytes in its header."""
    expected = found = 0
    stream = zlib.decompressobj()
    for name, place, length in png_chunks(file):
        file.seek(place)
        if name == b"IHDR":
            expected = _png_bytes(file.read(13))
        if name == b"IDAT":
            while not stream.eof and found < expected and (block := file.read(min(length, _BLOCK))):
                length -= len(block)
                while block and not stream.eof and found < expected:
                    found += len(stream.decompress(block, _BLOCK))
                    block = stream.unconsumed_tail
    while found < expected and (rest := stream.decompress(b"", _BLOCK)):
        found += len(rest)
    return found >= expected


def _png_bytes(header: bytes) -> int:
    """Return the number of bytes of a PNG's rows, each with one byte for its filter."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    total = 0
    for x, y, step_x, step_y in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((x - width) // step_x), -((y - height) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * depth * _SAMPLES[color] // 8))
    return total


def _is_whole_jpeg(data: bytes) -> bool:
    """Return whether a stricter decoder than Pillow's finds all blocks of a JPEG; true for kinds it does not know."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    try:
        decoder.decode(av.Packet(data))
    except av.error.FFmpegError as error:
        return not isinstance(error, av.error.InvalidDataError)
    return True


def _check_highest(image: Any, file: BinaryIO) -> None:
    """Check that no value of a PPM or PGM is above its maximum, to which Pillow would clip it."""
    _, _, place, (_, highest) = image.tile[0]
    count, kind = image.width * image.height * len(image.getbands()), np.dtype(np.uint8 if highest < 256 else ">u2")
    file.seek(place)
    for start in range(0, count, _BLOCK):
        block = file.read(min(_BLOCK, count - start) * kind.itemsize)
        values = np.frombuffer(block, kind, len(block) // kind.itemsize)
        if values.max(initial=0) > highest:
            raise OSError(f"it has values above {highest}, which its header calls the highest")


def _check_cover(image: Any, cause: str) -> None:
    width, height = image.size
    planes: dict[str, int] = {}
    for tile in image.tile:
        left, top, right, bottom = tile[1]
        plane = str(tile[3][0]) if tile[0] == "raw" and isinstance(tile[3], tuple) else ""
        planes[plane] = planes.get(plane, 0) + (right - left) * (bottom - top)
    if not planes or min(planes.values()) < width * height:
        raise OSError(cause)


def _check_tiff(image: Any, file: BinaryIO) -> None:
    """Check that no strip or tile of a TIFF is missing; libtiff checks their content for most compressions."""
    tags, compression = image.tag_v2, image.info.get("compression")
    if compression in _FAX:
        raise OSError("it is compressed as a fax, where missing rows cannot be told from white ones; save it as PNG")
    if tags.get(_TIFF_PHOTOMETRIC) == 0 and image.mode.startswith("I;16"):  # Pillow inverts shallower ones alone
        raise OSError("it has 16 bits and 0 for white, which is not read; save it as PNG")
    _check_cover(image, _EARLY)
    places, counts = next(((tags[a], tags.get(b, ())) for a, b in _TIFF_STRIPS if a in tags), ((), ()))
    if 0 in places:  # not stored
        raise OSError(_EARLY)
    if compression == "raw":
        bits = tags.get(_TIFF_BITS, (1,))
        planar = tags.get(_TIFF_PLANAR, 1) == 2 and len(bits) > 1
        if planar and len({tile[3][0] for tile in image.tile}) < len(image.getbands()):
            raise OSError(_EARLY)
        depth = bits[0] if planar else sum(bits)
        for tile, count in zip(image.tile, counts[-len(image.tile) :], strict=False):
            left, top, right, bottom = tile[1]
            if count < (bottom - top) * math.ceil((right - left) * depth / 8):
                raise OSError(_EARLY)
    if compression == "jpeg":
        tables = bytes(tags.get(_TIFF_JPEG_TABLES, b""))
        for place, count in zip(places, counts, strict=False):
            file.seek(place)
            strip = file.read(count)
            if not _is_whole_jpeg(tables[:-2] + strip[2:] if tables else strip):
                raise OSError(_EARLY)
