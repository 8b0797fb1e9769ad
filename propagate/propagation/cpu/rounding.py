"""Compiled loops that round vectors to int8 for `propagate.propagation.cpu.transfer`, which says why that is exact.

Keys lie as `vectors.multiply_pair` takes them: rows of blocks of 16 keys; of each block the first
four channels of all 16, the next four, and so on; 128 is added to every code, since one side has to be unsigned.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from propagate.propagation.cpu.vectors import LANES, compiled

_UNDERFLOW = np.float32(1e-17)  # more than what squares below 1e-38, which count as 0, add to a length


@compiled
@no_type_check
def _round(vector, mean, code):
    """Write the codes of `vector` less `mean`; return scale, length of the remainder and own length."""
    top, square = np.float32(0), np.float32(0)
    for c in range(len(vector)):
        value = vector[c] - mean[c]
        top = max(top, abs(value))
        square += value * value
    # tiny vectors have no inverse scale: of them everything is remainder
    scale = top / np.float32(127) if top > np.float32(1e-30) else np.float32(0)
    inverse = np.float32(127) / top if top > np.float32(1e-30) else np.float32(0)
    error = np.float32(0)
    for c in range(len(vector)):
        value = vector[c] - mean[c]
        # to the nearest: cut off above 0, since that is what vector units have an instruction for
        rounded = np.int32(value * inverse + np.float32(128.5)) - np.int32(128)
        code[c] = rounded
        remainder = value - scale * np.float32(rounded)
        error += remainder * remainder
    return scale, np.sqrt(error) + _UNDERFLOW, np.sqrt(square) + _UNDERFLOW


@compiled
@no_type_check
def round_queries(rows, codes, offsets, scales, errors, lengths):
    """Round the vectors of queries.

    Args:
        rows: (h, w, c) float32.
        codes: (h, v, s) int8, v >= w, s >= c a multiple of 4, zeros; written: rows = scales * codes + remainder.
        offsets: (h, v) int32, zeros; written: -128 times the sum of the codes, which takes back what `round_keys` adds.
        scales: (h, w) float32, written; 0 where the vector is.
        errors: (h, w) float32, written: length of the remainder, at least.
        lengths: (h, w) float32, written: length of rows, at least.
    """
    height, width, channels = rows.shape
    none = np.zeros(channels, np.float32)
    for y in range(height):
        for x in range(width):
            code = codes[y, x]
            scales[y, x], errors[y, x], lengths[y, x] = _round(rows[y, x], none, code)
            total = np.int32(0)
            for c in range(channels):
                total += np.int32(code[c])
            offsets[y, x] = -128 * total


@compiled
@no_type_check
def round_keys(rows, which, places, each, band, first, mean, codes, scales, errors, lengths):
    """Round the vectors of some frames' keys, less `mean`.

    Args:
        rows: (n, h, w, c) float32.
        which: (m,) int64: the frames to do.
        places: (m,) int64: the place of each among the frames of a cell.
        each: frames of a cell: a row of codes holds all frames of the first column, all of the next, and so on.
        band: (first row, end row) to do.
        first: the row of the grid that is the first of `rows`.
        mean: (c,) float32.
        codes: (h or 1, blocks, s, 16) uint32, written: four codes of 8 bits, the first in the lowest, 4 s >= c. If
            there is one row, it holds the whole grid's.
        scales: (h or 1, keys) float32, written: rows - mean = scales * (codes - 128) + remainder; 0 where that is.
        errors: (h or 1, keys) float32, written: length of the remainder, at least.
        lengths: (h or 1, keys) float32, written: length of rows - mean, at least.
    """
    width, groups = rows.shape[2], codes.shape[2]
    code = np.zeros(4 * groups, np.int8)
    fours = code.view(np.uint32)
    for y in range(band[0], band[1]):
        row = y if len(codes) > 1 else 0
        before = 0 if len(codes) > 1 else y * width * each
        for x in range(width):
            for i in range(len(which)):
                key = before + x * each + places[i]
                scale, error, length = _round(rows[which[i], y - first, x], mean, code)
                scales[row, key], errors[row, key], lengths[row, key] = scale, error, length
                block, lane = codes[row, key // LANES], key % LANES
                for s in range(groups):
                    block[s, lane] = fours[s] ^ np.uint32(0x80808080)
