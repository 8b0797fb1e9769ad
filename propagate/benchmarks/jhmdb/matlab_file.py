"""A safe reader of numeric arrays in MATLAB files of level 5 ("MAT-File Format", MathWorks, chapter 1).

scipy's compiled reader trusts type codes and sizes: a wrong byte can crash the process or allocate gigabytes. This
reader supports the header, the elements and plain arrays of real numbers, and raises an error for damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy import ndarray

from propagate.errors import InputError
from propagate.files.documents import check_regular_file

_MAX_BYTES = 64 * 2**20  # of a file, and of an unpacked array
_HEADER, _START = 128, 4096  # bytes of the file header; bytes to decompress for an array's name
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse matrix"}
_COMPLEX = 0x0800


class _DamagedError(Exception):
    """A fault of a file, in a few words."""


def read_numbers(path: Path, name: str) -> ndarray:
    """Return one variable of a MATLAB file (`save -v6` or `-v7`), with the shape and type in the file.

    Raises:
        InputError: the file is missing, damaged, of another level or over 64 MiB; or the variable is missing or not an
            array of real numbers.
    """
    if not path.exists():
        raise InputError(f"{path} is missing.")
    check_regular_file(path, "MATLAB file")
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        found = _find(content, name)
    except (_DamagedError, zlib.error, struct.error, OSError) as problem:
        raise InputError(
            f"{path} cannot be read as a .mat file: {problem}.", "Download it again, or save it with -v7."
        ) from problem
    if found is None:
        raise InputError(f"{path} has no {name}.")
    if isinstance(found, str):
        raise InputError(f"{name} in {path} is {found}, not numbers.")
    return found


def _find(content: bytes, name: str) -> ndarray | str | None:
    """Return the array, or a description of another kind of variable; None where it is missing."""
    if len(content) > _MAX_BYTES:
        raise _DamagedError(f"it is larger than {_MAX_BYTES >> 20} MiB")
    order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER - 2 : _HEADER])
    if order is None or struct.unpack(f"{order}H", content[_HEADER - 4 : _HEADER - 2])[0] >> 8 != 1:
        raise _DamagedError("it is not of level 5")
    place = _HEADER
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, place = place + 8, place + 8 + size
        if place > len(content):
            raise _DamagedError("it ends early")
        if kind == _COMPRESSED:
            packed = content[start:place]
            inner = zlib.decompressobj().decompress(packed, _START)
            if _name(inner[8:], order) == name:
                return _array(_unpacked(packed, order), order)
        elif kind == _MATRIX and _name(content[start:place], order) == name:
            return _array(content[start:place], order)
    return None


def _unpacked(packed: bytes, order: str) -> bytes:
    matrix = zlib.decompressobj().decompress(packed, _MAX_BYTES + 1)
    kind, size = struct.unpack_from(f"{order}II", matrix)
    if kind != _MATRIX or len(matrix) > _MAX_BYTES or 8 + size > len(matrix):
        raise _DamagedError("an array is too large or ends early")
    return matrix[8 : 8 + size]


def _name(matrix: bytes, order: str) -> str | None:
    """Return the name of an array; None where it cannot be read."""
    try:
        _, _, place = _element(matrix, 0, order)
        _, _, place = _element(matrix, place, order)
        kind, name, _ = _element(matrix, place, order)
    except (_DamagedError, struct.error):
        return None
    return name.decode("latin-1") if kind == _INT8 else None


def _array(matrix: bytes, order: str) -> ndarray | str:
    kind, flags, place = _element(matrix, 0, order)
    if kind != _UINT32 or len(flags) != 8:
        raise _DamagedError("an array has no flags")
    (word,) = struct.unpack_from(f"{order}I", flags)
    if word & 0xFF not in _CLASSES or word & _COMPLEX:
        return _OTHERS.get(word & 0xFF, "of a kind")
    kind, sides, place = _element(matrix, place, order)
    if kind != _INT32 or len(sides) % 4:
        raise _DamagedError("an array has no shape")
    shape = [int(side) for side in np.frombuffer(sides, f"{order}i4")]
    _, _, place = _element(matrix, place, order)
    kind, data, _ = _element(matrix, place, order)
    if kind not in _STORED:
        raise _DamagedError("an array has data of an unknown type")
    stored = np.dtype(f"{order}{_STORED[kind]}")
    if min(shape, default=0) < 0 or math.prod(shape) * stored.itemsize != len(data):
        raise _DamagedError("an array has another size than its data")
    return np.frombuffer(data, stored).astype(_CLASSES[word & 0xFF]).reshape(shape, order="F")


def _element(content: bytes, place: int, order: str) -> tuple[int, bytes, int]:
    """Return type and data of the element at this place, and the place of the next one."""
    kind, size = struct.unpack_from(f"{order}II", content, place)
    if kind >> 16:  # up to four bytes lie in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        start, end = place + 4, place + 8
        if size > 4:
            raise _DamagedError("an element is too large")
    else:
        start, end = place + 8, place + 8 + -(-size // 8) * 8
    if start + size > len(content):
        raise _DamagedError("an array ends early")
    return kind, content[start : start + size], end
