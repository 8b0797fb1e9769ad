"""Masks with transparency and of every depth: read exactly, or refused with an error of ours."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from propagate.errors import InputError
from propagate.files.picture_containers import avif_bits
from propagate.files.pictures import inspect_picture
from propagate.formats import DAVIS_PALETTE, read_indexed_png, read_mask, read_mask_file
from propagate.video import open_video


def square(size: tuple[int, int] = (40, 50)) -> np.ndarray:
    ids = np.zeros(size, np.uint8)
    ids[10:25, 15:40] = 1
    return ids


def two() -> np.ndarray:
    ids = square()
    ids[28:36, 4:30] = 2
    return ids


def palette(index: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8))
    image.putpalette([value for color in colors for value in color])
    return image


RED, WHITE, BLACK, GREEN = (255, 0, 0), (255, 255, 255), (0, 0, 0), (0, 255, 0)


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("colors", [(RED, WHITE), (BLACK, WHITE), (WHITE, BLACK), (RED, BLACK)])
@pytest.mark.parametrize("transparent", [0, 1])
def test_a_transparent_entry_of_a_palette_is_background(
    tmp_path: Path, suffix: str, colors: tuple[tuple[int, int, int], ...], transparent: int
) -> None:
    index = square() if transparent == 0 else 1 - square()
    path = tmp_path / f"a.{suffix}"
    palette(index, *colors).save(path, transparency=transparent)
    read = read_mask_file(path)
    np.testing.assert_array_equal(read.mask.ids, square())
    assert any("transparent is background" in note for note in read.notes)


def test_several_transparent_entries(tmp_path: Path) -> None:
    index = np.choose(two(), [0, 3, 5])
    index[:, 45:] = 4  # half transparent, and more transparent than not
    palette(index, RED, RED, RED, GREEN, WHITE, RED).save(
        tmp_path / "a.png", transparency=bytes([0, 255, 255, 255, 100])
    )
    read = read_mask_file(tmp_path / "a.png")
    np.testing.assert_array_equal(read.mask.ids, np.choose(two(), [0, 3, 5]))
    assert any("one half" in note for note in read.notes)


def test_void_that_is_transparent_leaves_the_numbers_of_davis(tmp_path: Path) -> None:
    index = two()
    index[:4] = 255
    image = Image.fromarray(index)
    image.putpalette(DAVIS_PALETTE.tobytes())
    image.save(tmp_path / "a.png", transparency=255)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").ids, two())


def test_an_unused_transparent_entry_changes_nothing(tmp_path: Path) -> None:
    palette(two(), BLACK, RED, GREEN, WHITE).save(tmp_path / "a.png", transparency=3)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").ids, two())
    assert read_mask_file(tmp_path / "a.png").notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("numbers", "transparent", "wanted"),
    [
        ((255, 0), 255, (0, 1)),
        ((0, 255), 0, (0, 1)),
        ((7, 9), 7, (0, 9)),
        ((200, 0), 200, (0, 1)),
    ],
)
def test_a_transparent_gray_is_background(
    tmp_path: Path, dtype: type, numbers: tuple[int, int], transparent: int, wanted: tuple[int, int]
) -> None:
    Image.fromarray(np.choose(square(), numbers).astype(dtype)).save(tmp_path / "a.png", transparency=transparent)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").ids, np.choose(square(), wanted))


@pytest.mark.parametrize("transparent", [0, 255])
def test_a_transparent_value_of_one_bit(tmp_path: Path, transparent: int) -> None:
    image = (
        Image.fromarray(square() if transparent == 0 else 1 - square()).point(lambda value: 255 * value).convert("1")
    )
    image.save(tmp_path / "a.png", transparency=transparent // 255)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").ids, square())


def test_a_transparent_color_is_background(tmp_path: Path) -> None:
    rgb = np.array([WHITE, BLACK, RED], np.uint8)[two()]
    Image.fromarray(rgb).save(tmp_path / "a.png", transparency=WHITE)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").ids, two())


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel(tmp_path: Path, suffix: str, mode: str) -> None:
    rgba = np.dstack([np.zeros((*square().shape, 3), np.uint8), 255 * square()])
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgba).convert(mode).save(path, lossless=True, exact=True)
    np.testing.assert_array_equal(read_mask(path).ids, square())


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("values", [(256, 300), (1, 2), (40_000, 40_001), (65_535, 65_534)])
def test_colors_of_16_bits_are_told_apart(tmp_path: Path, suffix: str, values: tuple[int, int]) -> None:
    colors = np.array([(0, 0, 0), (values[0], 0, 7), (values[1], 0, 7)], np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), colors[two()])
    np.testing.assert_array_equal(read_mask(tmp_path / f"a.{suffix}").ids, two())


def test_transparency_of_16_bits(tmp_path: Path) -> None:
    bgra = np.array([(0, 0, 0, 0), (1, 0, 0, 65_535), (2, 0, 0, 40_000)], np.uint16)[two()]
    cv2.imwrite(str(tmp_path / "a.png"), bgra)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").ids, two())


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_white_of_any_depth(tmp_path: Path, bits: int) -> None:
    white = 2**bits - 1
    Image.fromarray(square().astype(np.uint16) * white).save(tmp_path / "a.png")
    read = read_mask_file(tmp_path / "a.png")
    np.testing.assert_array_equal(read.mask.ids, square())
    assert any(f"{bits}-bit" in note for note in read.notes) == (bits < 16)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.uint16])
def test_deep_numbers(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.choose(two(), (0, 3, 254)).astype(dtype)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif").ids, np.choose(two(), (0, 3, 254)))
    for wrong in {np.uint16: (300,), np.int32: (300, -1), np.float32: (300, -1, 1.5, np.nan)}[dtype]:
        values = two().astype(dtype)
        values[two() == 2] = wrong
        Image.fromarray(values).save(tmp_path / "b.tif")
        with pytest.raises(InputError, match="not object ids"):
            read_mask(tmp_path / "b.tif")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits_of_gray_hold_the_numbers_that_were_stored(tmp_path: Path, bits: int) -> None:
    ids = np.choose(two(), (0, 1, 1 if bits == 1 else 2)).astype(np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png_of(ids, bits))
    np.testing.assert_array_equal(read_mask(path).ids, ids)
    np.testing.assert_array_equal(read_indexed_png(path).ids, ids)


def png_of(values: np.ndarray, bits: int, transparent: int | None = None) -> bytes:
    """A grayscale PNG of few bits, which Pillow does not write."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    unpacked = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(height, width * bits)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in unpacked)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    key = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    pixels = key + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_white_is_zero(tmp_path: Path) -> None:
    for image in (Image.fromarray(255 * square()).convert("1"), Image.fromarray(255 * square())):
        image.save(tmp_path / "a.tif", tiffinfo={262: 0})
        np.testing.assert_array_equal(read_mask(tmp_path / "a.tif").ids, square())


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (1 - square((40, 50)), "100 % of the border"),
        (np.where(np.arange(50) < 49, 1 - square((40, 50)), 0), "77 % of the border"),
        (np.ones((40, 50), np.uint8), "100 % of the frame"),
        (square(), None),
    ],
)
def test_a_mask_that_may_be_inverted_is_said(tmp_path: Path, ids: np.ndarray, said: str | None) -> None:
    Image.fromarray(255 * ids).save(tmp_path / "a.png")
    notes = [note for note in read_mask_file(tmp_path / "a.png").notes if "inverted" in note]
    assert bool(notes) == (said is not None)
    assert all(said in note for note in notes if said)


def test_objects_of_a_few_pixels_are_said(tmp_path: Path) -> None:
    ids = two()
    ids[0, 0], ids[39, 48:], ids[:3, 10:13] = 7, 9, 11
    Image.fromarray(ids).save(tmp_path / "a.png")
    said = [note.split("a.png ")[1] for note in read_mask_file(tmp_path / "a.png").notes]
    assert said == ["has only 1 pixel.", "has only 2 pixels."]


def test_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.fromarray(255 * square()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 6])
    with pytest.raises(InputError, match="50x40, but the frame is 20x10"):
        read_mask(tmp_path / "a.png", frame_size=(10, 20))


SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
ANY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@ANY
@given(ids=hnp.arrays(np.uint8, SHAPES), bits=st.sampled_from([8, 16, 32, "F"]), suffix=st.sampled_from(["png", "tif"]))
def test_any_numbers_come_back_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray, bits: int | str, suffix: str
) -> None:
    dtype = {8: np.uint8, 16: np.uint16, 32: np.int32, "F": np.float32}[bits]
    path = tmp_path_factory.mktemp("any") / f"a.{suffix if bits in (8, 16) else 'tif'}"
    Image.fromarray(ids.astype(dtype)).save(path)
    try:
        found = read_mask(path).ids
    except InputError:
        return
    used = set(np.unique(ids).tolist())
    wanted = (ids > 0).astype(np.uint8) if used <= {0, 255} or (used <= {0, 1} and bits == "F") else ids
    np.testing.assert_array_equal(found, wanted)


@ANY
@given(
    index=hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 3)),
    opacity=st.lists(st.sampled_from([0, 90, 200, 255]), min_size=4, max_size=4),
    colors=st.lists(st.sampled_from([RED, GREEN, WHITE, (0, 0, 200)]), min_size=4, max_size=4, unique=True),
)
def test_any_palette_comes_back_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, index: np.ndarray, opacity: list[int], colors: list[tuple[int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.png"
    palette(index, *colors).save(path, transparency=bytes(opacity))
    solid = np.array(opacity)[index] >= 128
    try:
        found = read_mask(path).ids
    except InputError:
        return
    if solid.all():
        np.testing.assert_array_equal(found, index)
    else:
        np.testing.assert_array_equal(found > 0, solid)
        assert len({*zip(found[solid].tolist(), index[solid].tolist(), strict=True)}) == len(np.unique(index[solid]))


@ANY
@given(ids=hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 4)), data=st.data(), deep=st.booleans())
def test_any_colors_come_back_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray, data: st.DataObject, deep: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.png"
    most = 65_535 if deep else 255
    channel = st.integers(0, most)
    colors = data.draw(st.lists(st.tuples(channel, channel, channel), min_size=4, max_size=4, unique=True))
    table = np.array([(0, 0, 0), *colors], np.uint16 if deep else np.uint8)
    cv2.imwrite(str(path), table[ids])
    try:
        found = read_mask(path).ids
    except InputError:
        return
    if (table[ids] == 0).all(-1).any():
        pairs = {*zip(found.ravel().tolist(), map(tuple, table[ids].reshape(-1, 3).tolist()), strict=True)}
        assert len(pairs) == len(np.unique(table[ids].reshape(-1, 3), axis=0)) == len({number for number, _ in pairs})
        np.testing.assert_array_equal(found == 0, (table[ids] == 0).all(-1))


def test_an_avif_of_more_than_8_bits_is_refused(tmp_path: Path) -> None:
    import av

    encoder = next((name for name in ("libaom-av1", "libsvtav1") if name in av.codecs_available), None)
    if encoder is None:
        pytest.skip("no encoder of AV1")
    path = tmp_path / "a.avif"
    with av.open(str(path), "w", format="avif") as container:
        stream = container.add_stream(encoder, rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for packet in (*stream.encode(frame.reformat(format="yuv420p10le")), *stream.encode()):
            container.mux(packet)
    assert inspect_picture(path).bits == 10
    with pytest.raises(InputError, match="10 bits per channel") as caught:
        read_mask(path)
    assert "PNG" in caught.value.remedy
    info = open_video(tmp_path).info
    assert any("1 10-bit pictures are converted to 8-bit RGB" in note for note in info.notes)


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_the_depth_of_an_avif(tmp_path: Path, depth: int) -> None:
    data = BytesIO()
    Image.fromarray(square()).save(data, format="AVIF")
    content = bytearray(data.getvalue())
    place = content.index(b"av1C") + 6
    content[place] = content[place] & ~0x60 | {8: 0, 10: 0x40, 12: 0x60}[depth]
    (tmp_path / "a.avif").write_bytes(content)
    with (tmp_path / "a.avif").open("rb") as file:
        assert avif_bits(file) == depth


@pytest.mark.parametrize("kind", ["jpeg.tif", "webp", "jpg"])
def test_masks_of_lossy_compression_are_refused_or_hardened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    color = np.zeros((80, 100, 3), np.uint8)
    color[20:51, 30:77] = 200, 30, 40
    Image.fromarray(color).save(path, compression="jpeg", quality=40)
    assert inspect_picture(path).lossy
    with pytest.raises(InputError, match=r"compression of .* has turned flat colors") as caught:
        read_mask(path)
    assert "--harden" in caught.value.remedy
    found, wanted = read_mask(path, harden=True).ids == 1, color.any(-1)
    assert (found & wanted).sum() > 0.9 * (found | wanted).sum()


def test_ids_of_a_lossless_webp_are_colors_that_may_be_close(tmp_path: Path) -> None:
    for extra in ({}, {"exif": b"Exif\0\0"}):
        Image.fromarray(np.repeat(two()[..., None], 3, 2)).save(tmp_path / "a.webp", lossless=True, **extra)
        assert inspect_picture(tmp_path / "a.webp").lossy == ""
        np.testing.assert_array_equal(read_mask(tmp_path / "a.webp").ids, two())


def test_soft_edges_of_sixteen_bits_are_hardened(tmp_path: Path) -> None:
    soft = cv2.GaussianBlur(square((80, 100)).astype(np.float32), (0, 0), 2)
    color = np.round(soft[..., None] * np.array([1000, 4000, 60000])).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), color)
    with pytest.raises(InputError, match="soft") as caught:
        read_mask(tmp_path / "a.png")
    assert "--harden" in caught.value.remedy
    found = read_mask(tmp_path / "a.png", harden=True).ids == 1
    assert ((found & (soft > 0.5)).sum() / (found | (soft > 0.5)).sum()) > 0.95


@pytest.mark.parametrize("maxval", [2, 3, 100, 254, 255, 1000, 65535])
def test_ids_of_a_pgm_are_numbers_whatever_its_highest(tmp_path: Path, maxval: int) -> None:
    for text in (False, True):
        values = two().astype(">u2" if maxval > 255 else np.uint8)
        data = " ".join(map(str, values.ravel())).encode() if text else values.tobytes()
        (tmp_path / "a.pgm").write_bytes(b"P%d 50 40 %d\n" % (2 if text else 5, maxval) + data)
        np.testing.assert_array_equal(read_mask(tmp_path / "a.pgm").ids, two())


def test_colors_of_a_deep_ppm_are_refused(tmp_path: Path) -> None:
    for highest, text in ((65535, True), (65535, False), (1000, False)):
        values = np.zeros((40, 50, 3), ">u2")
        values[10:20, 10:20], values[25:35, 10:20] = 600, 601
        data = " ".join(map(str, values.ravel())).encode() if text else values.tobytes()
        (tmp_path / "a.ppm").write_bytes(b"P%d 50 40 %d\n" % (3 if text else 6, highest) + data)
        with pytest.raises(InputError, match=f"{highest.bit_length()} bits"):
            read_mask(tmp_path / "a.ppm")


@pytest.mark.parametrize(("highest", "beyond"), [(2, 3), (4, 255), (1000, 1001), (1000, 60_000)])
def test_values_of_a_pgm_above_its_highest_are_refused(tmp_path: Path, highest: int, beyond: int) -> None:
    values = two().astype(">u2" if highest > 255 else np.uint8)
    values[-1, -1] = beyond
    for end in (b"", b"\xff"):
        (tmp_path / "a.pgm").write_bytes(b"P5 50 40 %d\n" % highest + values.tobytes() + end)
        with pytest.raises(InputError, match=f"has values above {highest}"):
            read_mask(tmp_path / "a.pgm")
        (tmp_path / "a.pgm").write_bytes(b"P5 50 40 %d\n" % beyond + values.tobytes() + end)
        assert beyond > 255 or read_mask(tmp_path / "a.pgm").ids.max() == beyond


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_numbers_of_few_bits(tmp_path: Path, bits: int) -> None:
    white = 2**bits - 1
    path = tmp_path / "a.png"
    path.write_bytes(png_of(square() * np.uint8(white), bits))
    np.testing.assert_array_equal(read_indexed_png(path).ids, square() * white)
    np.testing.assert_array_equal(read_mask(path).ids, square())
    for numbers in (square() * white, (1 - square()) * white):
        path.write_bytes(png_of(numbers.astype(np.uint8), bits, transparent=int(numbers[0, 0])))
        np.testing.assert_array_equal(read_mask(path).ids, square())
