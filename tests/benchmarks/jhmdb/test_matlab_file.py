"""MATLAB files as scipy writes them, and whatever a damaged one may be."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from propagate.benchmarks.jhmdb.matlab_file import read_numbers
from propagate.errors import InputError

ARRAY = np.random.default_rng(0).normal(size=(2, 15, 4)) * 100


def element(kind: int, data: bytes, size: int | None = None, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data) if size is None else size) + data + b"\0" * (-len(data) % 8)


def matrix(
    shape: tuple[int, ...] = (1, 3),
    data: bytes = b"\1\2\3",
    *,
    stored: int = 2,
    class_flags: int = 6,
    size: int | None = None,
    order: str = "<",
) -> bytes:
    """A variable "a", by hand."""
    parts = (
        element(6, struct.pack(f"{order}II", class_flags, 0), order=order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order=order),
        struct.pack(f"{order}I", 1 << 16 | 1) + b"a\0\0\0",  # a small element: in its tag
        element(stored, data, size, order),
    )
    return element(14, b"".join(parts), order=order)


def file(path: Path, *elements: bytes, order: str = "<") -> Path:
    path.write_bytes(b"MATLAB".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49) + b"".join(elements))
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_every_type_of_number_as_scipy_writes_it(tmp_path, kind, compressed):
    array = ARRAY.astype(np.int8).astype(kind)
    texts = np.full((2, 2), "one", object)
    savemat(
        tmp_path / "a.mat",
        {"texts": texts, "other": np.eye(9), "pos_img": array, "s": {"pos_img": 1}},
        do_compression=compressed,
    )
    found = read_numbers(tmp_path / "a.mat", "pos_img")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_doubles_may_be_stored_as_smaller_numbers_and_in_either_order(tmp_path):
    for order in "<>":
        found = read_numbers(file(tmp_path / "a.mat", matrix(order=order), order=order), "a")
        assert (found.dtype, found.tolist()) == (np.float64, [[1, 2, 3]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((2, 2), "one", object), "a cell array"),
        ({"x": 1}, "a structure"),
        ("text", "text"),
        (np.eye(2) * 1j, "of a kind"),
    ],
)
def test_what_is_no_array_of_real_numbers(tmp_path, value, message):
    savemat(tmp_path / "a.mat", {"a": value})
    with pytest.raises(InputError, match=rf"a in .*a\.mat is {message}, not numbers"):
        read_numbers(tmp_path / "a.mat", "a")
    with pytest.raises(InputError, match=r"a\.mat has no b"):
        read_numbers(tmp_path / "a.mat", "b")


@pytest.mark.parametrize(
    "damaged",
    [
        matrix(stored=99),
        matrix(stored=0),
        matrix((2**31 - 1, 2**31 - 1, 2**31 - 1)),
        matrix((-1, -3)),
        matrix((1, 4)),
        matrix(size=2**32 - 1),
        matrix(size=2**31),
        element(14, matrix()[8:], 2**32 - 1),
        matrix()[:-9],
        element(15, b"no zlib"),
        element(15, b"", 2**32 - 1),
        element(15, zlib.compress(matrix(size=10**9))),
        b"\0",
    ],
)
def test_a_damaged_file_is_an_error_of_ours(tmp_path, damaged):
    with pytest.raises(InputError, match=r"a\.mat (cannot be read as a \.mat file|has no a)"):
        read_numbers(file(tmp_path / "a.mat", damaged), "a")


def test_an_array_that_unpacks_without_end_is_refused(tmp_path):
    bomb = zlib.compress(matrix((1, 80 * 2**20), bytes(80 * 2**20)))
    assert len(bomb) < 2**20
    with pytest.raises(InputError, match="too large or ends early"):
        read_numbers(file(tmp_path / "a.mat", struct.pack("<II", 15, len(bomb)) + bomb), "a")


def test_random_bytes_in_a_whole_file(tmp_path):
    savemat(tmp_path / "whole.mat", {"pos_img": ARRAY}, do_compression=True)
    savemat(tmp_path / "plain.mat", {"pos_img": ARRAY})
    random = np.random.default_rng(1)
    for name in ("whole.mat", "plain.mat"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(300):
            content = bytearray(whole)
            for place in random.integers(0, min(len(whole), 260), 3):
                content[place] = random.integers(0, 256)
            (tmp_path / "a.mat").write_bytes(content)
            try:
                read_numbers(tmp_path / "a.mat", "pos_img")
            except InputError:
                continue


def test_what_is_no_file_at_all(tmp_path):
    os.mkfifo(tmp_path / "pipe.mat")
    (tmp_path / "folder.mat").mkdir()
    (tmp_path / "empty.mat").write_bytes(b"")
    (tmp_path / "hdf.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(500))
    for name, message in [
        ("pipe.mat", "pipe"),
        ("folder.mat", "folder"),
        ("empty.mat", "level 5"),
        ("hdf.mat", "level 5"),
        ("nothing.mat", "missing"),
    ]:
        with pytest.raises(InputError, match=message):
            read_numbers(tmp_path / name, "a")
