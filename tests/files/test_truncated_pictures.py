"""Pictures whose pixels end early, of every format: refused, never filled up; whole ones are never refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from propagate.errors import InputError
from propagate.files.pictures import inspect_picture, load_picture

HEIGHT, WIDTH, TALL = 41, 50, 62


def smooth() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([y * 5, 255 - x * 4, y * 2 + x], 2).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    place, chunks = 8, []
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def png_with(depth: int, color: int, rows: bytes, *, interlaced: bool = False, height: int = HEIGHT) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, height, depth, color, 0, 0, interlaced)
    packed = zlib.compress(rows)
    parts = [(b"IDAT", packed[i : i + 40]) for i in range(0, len(packed), 40)]
    palette = [(b"PLTE", bytes(range(48)) * 16)] if color == 3 else []
    return png([(b"IHDR", header), *palette, *parts, (b"IEND", b"")])


def adam7_rows(depth: int, channels: int) -> list[bytes]:
    rows = []
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        width = len(range(x, WIDTH, dx))
        rows += [b"\0" + b"\x55" * -(-width * depth * channels // 8) for _ in range(y, HEIGHT, dy)]
    return rows


def refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{path.name} cannot be read as a picture: ") as caught:
        load_picture(path, "mask")
    assert caught.value.remedy


def whole(path: Path, data: bytes) -> np.ndarray:
    path.write_bytes(data)
    return np.asarray(load_picture(path, "mask")[0])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "color"),
    [(1, 0), (2, 0), (8, 0), (16, 0), (1, 3), (4, 3), (8, 3), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)],
)
def test_png(tmp_path: Path, depth: int, color: int, interlaced: bool) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row = b"\0" + b"\x55" * -(-WIDTH * depth * channels // 8)
    rows = adam7_rows(depth, channels) if interlaced else [row] * HEIGHT
    path = tmp_path / "a.png"
    assert whole(path, png_with(depth, color, b"".join(rows), interlaced=interlaced)).any()
    for short in (rows[:-1], rows[: len(rows) // 2]):
        refused(path, png_with(depth, color, b"".join(short), interlaced=interlaced))
    refused(path, png_with(depth, color, b"".join(rows)[:-1], interlaced=interlaced))
    refused(path, png_with(depth, color, b"".join(rows), interlaced=interlaced, height=TALL))
    black = [bytes(len(row)) for row in rows]
    assert not whole(path, png_with(depth, color, b"".join(black), interlaced=interlaced))[..., 0].any()


def test_a_png_that_was_cut_and_mended(tmp_path: Path) -> None:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[5:20] = 3
    chunks = png_chunks(encoded(ids, "PNG"))
    for count in range(1, len(chunks[1][1])):
        data = png([chunks[0], (b"IDAT", chunks[1][1][:count]), chunks[-1]])
        (tmp_path / "a.png").write_bytes(data)
        try:
            read = np.asarray(load_picture(tmp_path / "a.png")[0])
        except InputError:
            continue
        np.testing.assert_array_equal(read, ids)  # only the checksum at the end was cut


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}], ids=str
)
def test_jpeg(tmp_path: Path, mode: str, options: dict[str, object]) -> None:
    data = encoded(Image.fromarray(smooth()).convert(mode), "JPEG", quality=95, **options)
    path = tmp_path / "a.jpg"
    whole(path, data)
    place = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0") + 5
    refused(path, data[:place] + struct.pack(">H", TALL) + data[place + 2 :])
    if not options.get("progressive"):
        start = data.index(b"\xff\xda")
        refused(path, data[: start + (len(data) - start) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("gray", [126, 127, 128, 129])
def test_a_jpeg_of_medium_gray_is_whole(tmp_path: Path, kind: str, gray: int) -> None:
    for size in ((1, 1), (8, 8), (9, 17), (HEIGHT, WIDTH)):
        image = Image.fromarray(np.full((*size, 3), gray, np.uint8))
        more = {"save_all": True, "append_images": [image.resize((4, 4))]} if kind == "MPO" else {}
        assert (whole(tmp_path / "a.jpg", encoded(image, kind, **more)) == gray).all()


def tiff_tags(data: bytes) -> dict[int, int]:
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    places = [start + 2 + 12 * i for i in range(count)]
    return {struct.unpack("<H", data[place : place + 2])[0]: place for place in places}


def tiff_changed(data: bytes, tag: int, change: Callable[[int], int]) -> bytes:
    """One number of a TIFF, or all of its list of long ones, changed."""
    changed = bytearray(data)
    place = tiff_tags(data)[tag]
    kind, count = struct.unpack("<HI", data[place + 2 : place + 8])
    size, letter = {3: (2, "H"), 4: (4, "I")}[kind]
    start = place + 8 if size * count <= 4 else struct.unpack("<I", data[place + 8 : place + 12])[0]
    for i in range(count):
        old = struct.unpack_from(f"<{letter}", data, start + size * i)[0]
        struct.pack_into(f"<{letter}", changed, start + size * i, change(old))
    return bytes(changed)


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"])
def test_tiff(tmp_path: Path, compression: str, mode: str) -> None:
    if compression == "jpeg" and mode == "1":
        pytest.skip("no such TIFF")
    data = encoded(Image.fromarray(smooth()).convert(mode), "TIFF", compression=compression)
    path = tmp_path / "a.tif"
    whole(path, data)
    refused(path, tiff_changed(data, 257, lambda _: TALL))
    refused(path, tiff_changed(data, 279, lambda count: count // 2))
    refused(path, tiff_changed(data, 273, lambda _: 0))  # a sparse one: nothing is stored


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [1, 5, 8])
def test_tiffs_of_another_writer_are_whole(tmp_path: Path, compression: int, dtype: type) -> None:
    for pixels in (smooth().astype(dtype), smooth()[..., 0].astype(dtype)):
        path = tmp_path / "a.tif"
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 7])
        load_picture(path)


def test_a_fax_is_refused(tmp_path: Path) -> None:
    black = Image.fromarray(smooth()).convert("1")
    for compression in ("group3", "group4"):
        refused(tmp_path / "a.tif", encoded(black, "TIFF", compression=compression))


def test_sixteen_bits_with_white_as_zero_are_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(smooth()[..., 0].astype(np.uint16) << 8)
    data = encoded(deep, "TIFF")
    entry = struct.Struct("<HHIHH")
    assert data.count(entry.pack(262, 3, 1, 1, 0)) == 1
    np.testing.assert_array_equal(whole(tmp_path / "a.tif", data), np.asarray(deep))
    refused(tmp_path / "a.tif", data.replace(entry.pack(262, 3, 1, 1, 0), entry.pack(262, 3, 1, 0, 0)))


def test_a_gif_that_covers_a_part_of_its_canvas(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.fromarray(smooth()[..., 0]), "GIF"))
    path = tmp_path / "a.gif"
    whole(path, bytes(data))
    data[8:10] = struct.pack("<H", TALL)
    refused(path, bytes(data))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bmp_and_ppm(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(smooth()).convert(mode)
    data = bytearray(encoded(image, "BMP"))
    data[22:26] = struct.pack("<i", TALL)
    refused(tmp_path / "a.bmp", bytes(data))
    if mode != "P":
        refused(tmp_path / "a.ppm", encoded(image, "PPM").replace(b"50 41", b"50 62"))


@pytest.mark.parametrize("lossless", [True, False])
def test_webp(tmp_path: Path, lossless: bool) -> None:
    data = encoded(smooth(), "WEBP", lossless=lossless)
    half = len(data) // 2 // 2 * 2
    refused(tmp_path / "a.webp", data[:4] + struct.pack("<I", half - 8) + data[8:half])
    refused(
        tmp_path / "a.webp",
        data[:4] + struct.pack("<I", half - 8) + data[8:16] + struct.pack("<I", half - 20) + data[20:half],
    )


def test_the_orientation_after_the_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    chunks = png_chunks(encoded(smooth(), "PNG", exif=exif))
    late = [chunk for chunk in chunks if chunk[0] == b"eXIf"]
    path = tmp_path / "a.png"
    path.write_bytes(png([chunk for chunk in chunks[:-1] if chunk not in late] + late + chunks[-1:]))
    assert inspect_picture(path).size == load_picture(path)[0].size[::-1] == (WIDTH, HEIGHT)
    xmp = b'<x xmlns:tiff="t" tiff:Orientation="6"/>'
    text = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    path.write_bytes(png([chunk for chunk in chunks[:-1] if chunk not in late] + [text] + chunks[-1:]))
    assert inspect_picture(path).size == load_picture(path)[0].size[::-1]
