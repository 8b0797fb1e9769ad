"""Pictures of every format and fault: the whole primary picture, or an error that names the file."""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from propagate.errors import InputError, PropagateWarning
from propagate.files import pictures
from propagate.files.pictures import convert_picture, inspect_picture, load_picture

ORIENTATION = 0x0112


def noise(size: tuple[int, int] = (30, 40), channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (*size, channels), dtype=np.uint8)


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(load_picture(path)[0])


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm", "webp", "gif", "avif", "jpg"])
def test_every_format_is_read_whatever_the_name(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(noise()).save(tmp_path / f"a.{suffix}", lossless=True)
    image, header = load_picture((tmp_path / f"a.{suffix}").rename(tmp_path / "a.png"))
    assert header == inspect_picture(tmp_path / "a.png")
    assert (header.size, image.size, header.notes) == ((30, 40), (40, 30), ())
    if suffix not in ("jpg", "gif", "avif"):
        np.testing.assert_array_equal(np.asarray(image), noise())


def test_our_warnings_of_other_threads_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")

    def load(image: Image.Image, _file: object) -> None:
        image.load()
        other = threading.Thread(target=warnings.warn, args=("memory ran out", PropagateWarning))
        other.start()
        other.join()

    monkeypatch.setattr(pictures, "load_whole", load)
    with pytest.warns(PropagateWarning, match="memory ran out"):
        assert load_picture(tmp_path / "a.png")[1].notes == ()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"


@pytest.mark.parametrize("suffix", ["eps", "dds", "ico", "tga", "pcx", "sgi", "pdf", "jp2"])
def test_other_formats_are_refused_before_their_plugin_runs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "eps":
        path.write_bytes(EPS)
    else:
        Image.fromarray(noise()).save(path)
    path = path.rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"The mask .*a\.png is not a picture that can be read\.") as caught:
        load_picture(path, "mask")
    assert caught.value.remedy


def test_a_heic_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(InputError, match="HEIC") as caught:
        inspect_picture(tmp_path / "a.jpg")
    assert "PNG or JPEG" in caught.value.remedy


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path, cause in (
        (tmp_path / "pipe.png", "is a pipe"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.png", "does not exist"),
        (Path("/dev/zero"), "is a pipe or a device"),
    ):
        with pytest.raises(InputError, match=cause):
            load_picture(path)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    Image.fromarray(noise()).save(path)
    np.testing.assert_array_equal(pixels(path), noise())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "tif", "lzw.tif", "I;16.tif", "I;16.png"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = noise(channels=1)[..., 0] if "I;16" in kind or "tif" in kind else noise()
    stored = stored.astype(np.uint16) * 200 if "I;16" in kind else stored
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}
    mirrored = orientation in (2, 4, 5, 7)
    if kind == "jpg":  # smooth
        stored = np.stack(np.broadcast_arrays(*np.ogrid[:30, :40], 0), 2).astype(np.uint8) * 5
    upright = np.rot90(stored, turns[orientation])
    if mirrored:
        upright = upright[:, ::-1] if orientation in (2, 4) else upright[::-1]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{kind}"
    options = {"compression": "tiff_lzw"} if "lzw" in kind else {"lossless": True}
    Image.fromarray(stored).save(path, exif=exif, **options)
    assert inspect_picture(path).size == upright.shape[:2]
    tolerance = 16 if kind == "jpg" else 0
    np.testing.assert_allclose(pixels(path).astype(int), upright.astype(int), atol=tolerance)


@pytest.mark.parametrize("mode", ["RGB", "I;16", "RGBA"])
def test_sixteen_bits_are_known(tmp_path: Path, mode: str) -> None:
    import cv2

    shape = {"RGB": (8, 9, 3), "RGBA": (8, 9, 4), "I;16": (8, 9)}[mode]
    for suffix in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.zeros(shape, np.uint16))
        header = inspect_picture(tmp_path / f"a.{suffix}")
        assert (header.mode, header.sixteen_bit) == (mode, True)
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "b.png")
    assert not inspect_picture(tmp_path / "b.png").sixteen_bit


def test_a_jpeg_with_a_preview_is_its_primary_picture(tmp_path: Path) -> None:
    image = Image.fromarray(noise())
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[smaller(image)])
    image, header = load_picture(tmp_path / "a.jpg")
    assert (image.size, header.size, header.pictures) == ((40, 30), (30, 40), 2)
    assert any("2 pictures" in note and "primary" in note for note in header.notes)


@pytest.mark.parametrize("first", [True, False], ids=["thumbnail last", "thumbnail first"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_with_a_thumbnail_is_its_primary_picture(tmp_path: Path, first: bool, compression: str | None) -> None:
    image = Image.fromarray(noise())
    pages = [image, smaller(image)] if first else [smaller(image), image]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), noise())
    assert inspect_picture(tmp_path / "a.tif").pictures == 2


def test_a_tiff_page_that_is_marked_as_reduced_is_a_thumbnail_at_any_size(tmp_path: Path) -> None:
    image = Image.fromarray(noise())
    reduced = Image.new("RGB", (50, 50))
    reduced.encoderinfo = {"tiffinfo": {254: 1}}
    image.save(tmp_path / "a.tif", save_all=True, append_images=[reduced])
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), noise())


def test_a_raw_file_with_a_preview_alone_is_refused(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.tif", tiffinfo={254: 1, 330: 8})
    with pytest.raises(InputError, match=r"only a preview"):
        load_picture(tmp_path / "a.tif")
    Image.fromarray(noise()).save(tmp_path / "b.tif", tiffinfo={254: 1})
    np.testing.assert_array_equal(pixels(tmp_path / "b.tif"), noise())


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "avif"])
def test_several_equal_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(noise() // (i + 1)) for i in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"holds an animation|holds several pages") as caught:
        inspect_picture(tmp_path / f"a.{suffix}")
    assert "a separate file" in caught.value.remedy


def test_many_pages_are_not_all_opened(tmp_path: Path) -> None:
    page = struct.pack("<H", 2) + struct.pack("<HHII", 256, 3, 1, 4) + struct.pack("<HHII", 257, 3, 1, 4)
    starts = [8 + i * (len(page) + 4) for i in range(200_000)]
    data = b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", n) for n in [*starts[1:], 0])
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError):
        load_picture(tmp_path / "a.tif")


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for width, height in ((160, 524_896), (30_000, 30_000), (2**31 - 1, 2**31 - 1)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.png is far larger than any video frame.*67 million pixels"):
            inspect_picture(tmp_path / "a.png")


def test_a_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.bmp")
    monkeypatch.setattr(pictures, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"a\.bmp is larger than"):
        inspect_picture(tmp_path / "a.bmp")


def test_a_tiff_that_has_fewer_strips_than_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(noise()).save(path)
    content = path.read_bytes()
    height = struct.pack("<HHII", 257, 4, 1, 30)
    assert content.count(height) == 1
    path.write_bytes(content.replace(height, struct.pack("<HHII", 257, 4, 1, 3000)))
    with pytest.raises(InputError, match=r"a\.tif cannot be read as a picture: its pixels end before"):
        load_picture(path)


def test_damaged_metadata_is_a_note(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0rubbish")
    _, header = load_picture(tmp_path / "a.jpg")
    assert any("EXIF" in note for note in header.notes)


def test_modes_that_cannot_be_converted(tmp_path: Path) -> None:
    image = Image.new("I;16", (4, 4))
    with pytest.raises(InputError, match=r"a\.tif cannot be read as a picture: "):
        convert_picture(image, "nonsense", tmp_path / "a.tif")


@settings(deadline=None, max_examples=150)
@given(
    suffix=st.sampled_from(["png", "tif", "lzw.tif", "bmp", "ppm", "webp", "gif", "avif", "jpg", "mpo"]),
    data=st.data(),
)
def test_damage_is_an_error_of_ours_or_none(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"a.{suffix}"
    image = Image.fromarray(noise((12, 16)))
    if suffix == "mpo":
        image.save(path, save_all=True, append_images=[smaller(image)])
    else:
        image.save(path, compression="tiff_lzw" if "lzw" in suffix else None)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 400) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    problem = None
    try:
        load_picture(path)
    except InputError as error:
        problem = error
    assert problem is None or (str(path) in problem.message and problem.remedy)
