"""Compiled loops that quantize vectors to int8 for `propagate.propagation.cpu.transfer`, which proves it exact.

Keys lie as `vectors.multiply_pair` reads them: rows of blocks of 16 keys; in each block the first four channels of all
16, the next four, and so on; 128 is added to every code, because one factor must be unsigned.
"""

from typing import no_type_check

import numpy as np

from propagate.propagation.cpu.vectors import LANES, compiled

_UNDERFLOW = np.float32(1e-17)  # above what squares below 1e-38, which underflow to 0, add to a length


@compiled
@no_type_check
def _round(vector, mean, code):
    """Write the codes of `vector` less `mean`; return scale, length of the remainder and own length."""
    top, square = np.float32(0), np.float32(0)
    for c in range(len(vector)):
        value = vector[c] - mean[c]
        top = max(top, abs(value))
        square += value * value
    # tiny vectors have no inverse scale: all of them is remainder
    scale = top / np.float32(127) if top > np.float32(1e-30) else np.float32(0)
    inverse = np.float32(127) / top if top > np.float32(1e-30) else np.float32(0)
    error = np.float32(0)
    for c in range(len(vector)):
        value = vector[c] - mean[c]
        # to the nearest: truncated above 0, for which vector units have an instruction
        rounded = np.int32(value * inverse + np.float32(128.5)) - np.int32(128)
        code[c] = rounded
        remainder = value - scale * np.float32(rounded)
        error += remainder * remainder
    return scale, np.sqrt(error) + _UNDERFLOW, np.sqrt(square) + _UNDERFLOW


@compiled
@no_type_check
def round_queries(rows, codes, offsets, scales, errors, lengths):
    """Round the vectors of queries, (h, w, c) float32, into the other arrays.

    Args:
        codes: (h, v, s) int8, v >= w, s >= c a multiple of 4, zeros: rows = scales * codes + remainder.
        offsets: (h, v) int32, zeros: -128 times the sum of the codes, which cancels what `round_keys` adds.
        scales, errors, lengths: (h, w) float32: scale, and upper bounds on the lengths of remainder and vector.
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
    """Round the vectors of some frames' keys, less `mean`, into codes, scales, errors and lengths.

    Args:
        rows: (n, h, w, c) float32, starting with row `first` of the grid.
        which, places: (m,) int64: the frames to round, and the place of each among the `each` frames of a cell; a row
            of codes holds all frames of the first column, all of the next, and so on.
        band: (first row, end row) to round.
        codes: (h or 1, blocks, s, 16) uint32: four codes of 8 bits, the first in the lowest, 4 s >= c. A single row
            holds the whole grid. rows - mean = scales * (codes - 128) + remainder.
        scales, errors, lengths: (h or 1, keys) float32, as in `round_queries`.
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
