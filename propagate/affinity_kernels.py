"""Compiled inner loops of `propagate.affinity_cpu`, which says what they do and why it is exact.

Only that module imports this one, and only when a transfer step is due: numba takes half a second to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np

# Sums in any order, and no NaN: what vector units need. Infinities stay infinities.
_MATH = {"reassoc", "contract", "arcp", "nsz", "nnan"}
_PIECE = 32  # scores whose maximum is kept: all that is looked at twice, if that maximum is good enough
_UNDERFLOW = np.float32(1e-17)  # more than what squares below 1e-38, which count as 0, add to a length


def _compiled(function: Callable[..., Any]) -> Any:
    options: dict[str, Any] = {"nogil": True, "fastmath": _MATH, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that compiled code could be kept in
        return numba.njit(**options)(function)


@_compiled
@no_type_check
def quantize(rows, which, first, mean, codes, scales, errors, lengths):
    """Round vectors, less `mean`, to int8 with a scale each.

    Args:
        rows: (n, h, w, c) float32.
        which: (m,) int64: the frames to do.
        first: the row of the grid to begin with; how many are done, `codes` says.
        mean: (c,) float32.
        codes: (rows, w, m, c) int8, written: rows - mean = scales * codes + remainder.
        scales: (rows, w, m) float32, written; 0 where the vector is.
        errors: (rows, w, m) float32, written: length of the remainder, at least.
        lengths: (rows, w, m) float32, written: length of rows - mean, at least.
    """
    height, width, frames, channels = codes.shape
    for y in range(height):
        for frame in range(frames):
            for x in range(width):
                row, code = rows[which[frame], first + y, x], codes[y, x, frame]
                top, square = np.float32(0), np.float32(0)
                for c in range(channels):
                    value = row[c] - mean[c]
                    top = max(top, abs(value))
                    square += value * value
                # tiny vectors have no inverse scale: of them everything is remainder
                scale = top / np.float32(127) if top > np.float32(1e-30) else np.float32(0)
                inverse = np.float32(127) / top if top > np.float32(1e-30) else np.float32(0)
                error = np.float32(0)
                for c in range(channels):
                    value = row[c] - mean[c]
                    # to the nearest: cut off above 0, since that is what vector units have an instruction for
                    rounded = np.int32(value * inverse + np.float32(128.5)) - np.int32(128)
                    code[c] = rounded
                    remainder = value - scale * np.float32(rounded)
                    error += remainder * remainder
                scales[y, x, frame] = scale
                errors[y, x, frame] = np.sqrt(error) + _UNDERFLOW
                lengths[y, x, frame] = np.sqrt(square) + _UNDERFLOW


@_compiled
@no_type_check
def _list_pieces(begin, key, length, pieces, count):
    """Cut a run of neighbouring scores: (first score, first key, length)."""
    for start in range(0, length, _PIECE):
        pieces[count, 0], pieces[count, 1], pieces[count, 2] = begin + start, key + start, min(_PIECE, length - start)
        count += 1
    return count


@_compiled
@no_type_check
def _insert(values, places, value, place):
    """Into the descending list; the last falls out. Among equals the first stays ahead."""
    at = len(values) - 1
    while at > 0 and values[at - 1] < value:
        values[at], places[at] = values[at - 1], places[at - 1]
        at -= 1
    values[at], places[at] = value, place


@_compiled
@no_type_check
def _product(vector, key, table):
    total = np.float32(0)
    if table is None:
        for c in range(len(vector)):
            total += vector[c] * key[c]
    else:
        for c in range(len(vector)):
            total += vector[c] * table[key[c]]
    return total


@_compiled
@no_type_check
def _frame_and_cell(key, near, free, bound_keys):
    if key < bound_keys:
        return near[key % len(near)], key // len(near)
    return free[(key - bound_keys) % len(free)], (key - bound_keys) // len(free)


@_compiled
@no_type_check
def select(
    scores, row_begin, row_first, box, half, tile, frames, scales, errors, grid, query_codes, bounds, mean, query,
    keys, table, labels, k, temperature, keep, out,
):  # fmt: skip
    """Labels of the queries of one tile.

    Keys are numbered (row, column, frame) for the frames inside the window, then the same for the free frames.

    Args:
        scores: (m,) int32 or float32: for every row of keys that the tile reaches (queries, keys of the box in it);
            then for all queries of the tile (queries, free keys).
        row_begin, row_first: (h + 1,) int64 and (h,) int64: where a row's scores begin, the free ones last, and the
            first row of queries that they belong to.
        box: (first row, end row, first column, end column) of keys inside the window that the tile reaches.
        half: (reach + 1,) int64: columns that a query reaches to either side, by the distance of rows; -1: none.
        tile: (first row, first column, rows, columns) of the queries.
        frames: (n,) int64, frames inside the window, and (m,) int64, frames that it does not bind.
        scales: (keys,) float32: scores * scales are the coarse scores, in units of the query's scale.
        errors: (keys,) float32: length of what rounding took from each key.
        grid: (rows, columns) of all cells.
        query_codes: (scales, errors, lengths) of all queries as `quantize` gives them, (h, w) float32 each.
        bounds: the largest error and the largest length of the rounded keys.
        mean: (c,) float32: what the keys were less when they were rounded.
        query: (h, w, c) float32.
        keys: (n, h, w, c) float32, or uint16: places in `table`.
        table: (65536,) float32, or None.
        labels: (n, h, w, l) float32.
        k, temperature: see `propagate.affinity.propagate_labels`.
        keep: every key that equals the k-th counts too.
        out: (h, w, l) float32, written.

    Returns:
        How many keys were scored exactly.
    """
    scale_of, error_of, length_of = query_codes
    worst_error, longest = bounds
    height, width = grid
    near, free = frames
    bound_keys, free_keys = height * width * len(near), height * width * len(free)
    most = (box[1] - box[0]) * ((box[3] - box[2]) * len(near) // _PIECE + 1) + free_keys // _PIECE + 1
    pieces, peaks = np.empty((most, 3), np.int64), np.empty(most, np.float32)
    most = (box[1] - box[0]) * (box[3] - box[2]) * len(near) + free_keys
    found, where = np.empty(most, np.float32), np.empty(most, np.int64)
    best, place = np.empty(k, np.float32), np.empty(k, np.int64)
    mean_length = np.sqrt(_product(mean, mean, None))
    line = (box[3] - box[2]) * len(near)
    scored = 0
    for q in range(tile[2] * tile[3]):
        y, x = tile[0] + q // tile[3], tile[1] + q % tile[3]
        vector = query[y, x]
        count = 0
        for row in range(max(box[0], y - len(half) + 1), min(box[1], y + len(half))):
            reach = half[abs(row - y)]
            if reach >= 0:
                low, high = max(0, x - reach), min(width, x + reach + 1)
                begin = row_begin[row] + ((y - row_first[row]) * tile[3] + x - tile[1]) * line
                begin += (low - box[2]) * len(near)
                count = _list_pieces(begin, (row * width + low) * len(near), (high - low) * len(near), pieces, count)
        count = _list_pieces(row_begin[height] + q * free_keys, bound_keys, free_keys, pieces, count)

        # As many pieces as k have a key as good as the k-th best peak, so the k-th best coarse score is not below it.
        best[:], place[:] = -np.inf, -1
        for p in range(count):
            start, key = pieces[p, 0], pieces[p, 1]
            peak = np.float32(-np.inf)
            for i in range(pieces[p, 2]):
                peak = max(peak, np.float32(scores[start + i]) * scales[key + i])
            peaks[p] = peak
            if peak > best[k - 1]:
                _insert(best, place, peak, p)
        floor = best[k - 1]
        best[:], place[:] = -np.inf, -1
        for p in range(count):
            if peaks[p] >= floor:
                start, key = pieces[p, 0], pieces[p, 1]
                for i in range(pieces[p, 2]):
                    value = np.float32(scores[start + i]) * scales[key + i]
                    if value >= floor and value > best[k - 1]:
                        _insert(best, place, value, key + i)

        # Those k, scored exactly: the k-th best of all exact scores is not below their least.
        scale = scale_of[y, x]
        threshold, share = np.float32(-np.inf), np.float32(0)
        if scale > 0 and place[k - 1] >= 0:
            least = np.float32(np.inf)
            for i in range(k):
                frame, cell = _frame_and_cell(place[i], near, free, bound_keys)
                least = min(least, _product(vector, keys[frame, cell // width, cell % width], table))
            length = length_of[y, x]
            rounding = np.float32(len(mean) + 16) * np.float32(2.0**-22) * length * (longest + mean_length)
            slack = error_of[y, x] * longest * np.float32(1.001) + rounding
            share = (length + error_of[y, x]) / scale * np.float32(1.001)
            threshold = (least - _product(vector, mean, None) - slack) / scale

        # Every key whose exact score can be as good.
        best[:], place[:] = -np.inf, -1
        candidates = 0
        for p in range(count):
            if peaks[p] + share * worst_error >= threshold:
                start, key = pieces[p, 0], pieces[p, 1]
                for i in range(pieces[p, 2]):
                    if np.float32(scores[start + i]) * scales[key + i] + share * errors[key + i] >= threshold:
                        where[candidates] = key + i
                        candidates += 1
        for i in range(candidates):
            frame, cell = _frame_and_cell(where[i], near, free, bound_keys)
            found[i] = _product(vector, keys[frame, cell // width, cell % width], table)
            if found[i] > best[k - 1]:
                _insert(best, place, found[i], i)
        scored += candidates

        target = out[y, x]
        target[:] = 0
        total = 0.0
        for i in range(candidates if keep else min(k, candidates)):
            at = i if keep else place[i]
            if found[at] >= best[min(k, candidates) - 1]:
                weight = np.exp((np.float64(found[at]) - np.float64(best[0])) / temperature)
                total += weight
                frame, cell = _frame_and_cell(where[at], near, free, bound_keys)
                label = labels[frame, cell // width, cell % width]
                for channel in range(len(target)):
                    target[channel] += np.float32(weight) * label[channel]
        for channel in range(len(target) if candidates else 0):
            target[channel] /= np.float32(total)
    return scored
