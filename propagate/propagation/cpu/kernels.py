"""Compiled inner loops of `propagate.propagation.cpu.transfer`; numba takes half a second to load, so import lazily."""

from typing import no_type_check

import numpy as np

from propagate.propagation.cpu.rounding import round_keys, round_queries
from propagate.propagation.cpu.selection import (
    RUN,
    best_scores,
    find,
    insert,
    list_candidates,
    list_runs,
    product,
    score_exactly,
    with_ties,
)
from propagate.propagation.cpu.vectors import LANES, QUERIES, compiled, multiplies_integers, multiply_one, multiply_pair

__all__ = ["LANES", "QUERIES", "multiplies_integers", "round_keys", "round_queries", "select", "select_by_integers"]


@compiled
@no_type_check
def select(
    scores, row_begin, row_first, line, box, half, tile, across, frames, row_keys, errors, query_facts, bounds, mean,
    query, keys, table, labels, k, temperature, keep, out,
):  # fmt: skip
    """Write the labels of one tile of queries; return the number of keys scored exactly.

    Keys inside the window are numbered by (row, column, frame), `row_keys` to a row; then the free frames' by (cell,
    frame).

    Args:
        scores: (m + 15 or more,) float32, in units of the query's scale: for every row of keys that the tile reaches
            (rows of queries that reach it, across, keys of the box in it); then for all queries (queries, free keys).
        row_begin, row_first: (h + 1,) and (h,) int64: offset of each row's scores (free ones last), and the first row
            of queries they belong to.
        line: number in its row of the key with the first score; stride from one query to the next in a row's scores;
            the same stride in the free ones.
        box: (first row, end row, first column, end column) of keys inside the window that the tile reaches.
        half: (reach + 1,) int64: columns that a query reaches to each side, by the distance of rows; -1: none.
        tile: (first row, first column, rows, columns) of the queries.
        across: queries of a row in `scores`, at least the tile's columns.
        frames: (n,) and (m,) int64: frames inside the window, and free ones.
        errors: (keys,) float32: length of each key's rounding error.
        query_facts: (scales, errors, lengths) of all queries, see `round_queries`, (h, w) float32 each.
        bounds: the largest error and the largest length of the rounded keys.
        mean: (c,) float32, subtracted from the keys before rounding.
        query, labels, out: (h, w, c), (n, h, w, l) and (h, w, l) float32.
        keys: (n, h, w, c) float32, or uint16 indices into `table`, (65536,) float32 or None.
        keep: every key that equals the k-th counts too.
    """
    scale_of, error_of, length_of = query_facts
    worst_error, longest = bounds
    first_key, step, free_step = line
    height, width = out.shape[:2]
    near, free = frames
    bound_keys, free_keys = height * row_keys, height * width * len(free)
    reached = (box[1] - box[0]) * (box[3] - box[2]) * len(near) + free_keys
    most = (box[1] - box[0]) * ((box[3] - box[2]) * len(near) // RUN + 1) + free_keys // RUN + 1
    runs, peaks = np.empty((most, 3), np.int64), np.empty((most, LANES), np.float32)
    found, where = np.empty(reached + k, np.float32), np.empty(reached + k, np.int64)
    best, place = np.empty(k, np.float32), np.empty(k, np.int64)
    mean_length = np.sqrt(product(mean, mean, None))
    address = scores.ctypes.data
    scored = 0
    for y in range(tile[0], tile[0] + tile[2]):
        for x in range(tile[1], tile[1] + tile[3]):
            vector = query[y, x]
            count = 0
            for row in range(max(box[0], y - len(half) + 1), min(box[1], y + len(half))):
                reach = half[abs(row - y)]
                if reach >= 0:
                    low, high = max(0, x - reach) * len(near), min(width, x + reach + 1) * len(near)
                    begin = row_begin[row] + ((y - row_first[row]) * across + x - tile[1]) * step + low - first_key
                    count = list_runs(begin, row * row_keys + low, high - low, address, runs, peaks, count)
            begin = row_begin[height] + ((y - tile[0]) * across + x - tile[1]) * free_step
            count = list_runs(begin, bound_keys, free_keys, address, runs, peaks, count)

            best_scores(scores, runs[:count], peaks[:count], best, place)

            # Score those k exactly: the k-th best of all exact scores is not below their minimum.
            scale, last, last_key = scale_of[y, x], np.float32(np.inf), -1
            threshold, share = np.float32(-np.inf), np.float32(0)
            candidates = 0
            if scale > 0 and place[k - 1] >= 0:
                last, last_key = best[k - 1], place[k - 1]
                least = np.float32(np.inf)
                for i in range(k):  # not a slice, whose error message takes numba seconds to compile
                    where[i] = place[i]
                score_exactly(vector, keys, table, frames, bound_keys, row_keys, where[:k], found, 0)
                for i in range(k):
                    least = min(least, found[i])
                candidates = k
                length = length_of[y, x]
                rounding = np.float32(len(mean) + 16) * np.float32(2.0**-22) * length * (longest + mean_length)
                slack = error_of[y, x] * longest * np.float32(1.001) + rounding
                share = (length + error_of[y, x]) / scale * np.float32(1.001)
                threshold = (least - product(vector, mean, None) - slack) / scale

            # All other keys whose exact score may be as good.
            chosen, candidates = candidates, list_candidates(
                scores, runs[:count], peaks[:count], errors, worst_error, share, threshold, last, last_key, where,
                candidates,
            )  # fmt: skip
            score_exactly(vector, keys, table, frames, bound_keys, row_keys, where[:candidates], found, chosen)
            best[:], place[:] = -np.inf, -1
            for i in range(candidates):
                insert(best, place, found[i], where[i])
            scored += candidates

            counted = min(k, candidates)
            values, members = best[:counted], place[:counted]
            if keep and candidates > k:
                values, members = with_ties(found[:candidates], where[:candidates], best, place)
            target = out[y, x]
            target[:] = 0
            total = 0.0
            for i in range(len(values)):
                weight = np.exp((np.float64(values[i]) - np.float64(best[0])) / temperature)
                total += weight
                frame, row, column = find(members[i], frames, bound_keys, row_keys, width)
                label = labels[frame, row, column]
                for channel in range(len(target)):
                    target[channel] += np.float32(weight) * label[channel]
            for channel in range(len(target) if candidates else 0):
                target[channel] /= np.float32(total)
    return scored


@compiled
@no_type_check
def multiply_row(codes, scales, blocks, queries, offsets, out, begin, step):
    """Write coarse scores of some rows of queries, (rows, QUERIES, s) int8, with blocks (first, end) of a row of keys.

    See `round_queries` and `round_keys`. Scores go to `out` from `begin` on, one query every `step`.
    """
    groups = codes.shape[1]
    keys, scale, query, offset = codes.ctypes.data, scales.ctypes.data, queries.ctypes.data, offsets.ctypes.data
    at, query_bytes, block_bytes, out_bytes = out.ctypes.data + 4 * begin, 4 * groups, 64 * groups, 4 * step
    for block in range(blocks[0], blocks[1], 2):
        for row in range(len(queries)):
            arguments = (
                keys + block * block_bytes, query + row * queries.strides[0], query_bytes,
                offset + row * offsets.strides[0], scale + block * 64, groups,
                at + row * QUERIES * out_bytes + (block - blocks[0]) * 64, out_bytes,
            )  # fmt: skip
            if block + 1 < blocks[1]:
                multiply_pair(*arguments)
            else:
                multiply_one(*arguments)


@compiled
@no_type_check
def select_by_integers(
    near, free, queries, offsets, strip, tall, half, frames, row_keys, errors, query_facts, bounds, mean, query, keys,
    table, labels, k, temperature, keep, out,
):  # fmt: skip
    """Write the labels of a strip of at most QUERIES columns, `tall` rows at a time; return as `select`.

    Near and free are (codes, scales) of the keys, see `round_keys`; queries and offsets those of all queries, see
    `round_queries`; strip is (first row, first column, rows, columns). For the rest see `select`.
    """
    height, width = out.shape[:2]
    rows_off, columns_off, each = len(half) - 1, half.max(), len(frames[0])
    left, wide = strip[1], strip[3]
    low, high = max(0, left - columns_off), min(width, left + wide + columns_off)
    blocks = low * each // LANES, (high * each + LANES - 1) // LANES
    free_blocks = free[0].shape[1] if len(frames[1]) else 0
    step, free_step = (blocks[1] - blocks[0]) * LANES, free_blocks * LANES
    near_rows = min(2 * rows_off + 1, height) if each else 0
    scores = np.empty(tall * QUERIES * (near_rows * step + free_step) + LANES, np.float32)
    begin, first = np.zeros(height + 1, np.int64), np.zeros(height, np.int64)
    scored = 0
    for top in range(strip[0], strip[0] + strip[2], tall):
        end = min(top + tall, strip[0] + strip[2])
        box = (max(0, top - rows_off), min(height, end + rows_off), low, high) if each else (0, 0, 0, 0)
        done = 0
        for row in range(box[0], box[1]):
            begin[row], first[row] = done, max(top, row - rows_off)
            mine = slice(first[row], min(end, row + rows_off + 1))
            part, less = queries[mine, left : left + QUERIES], offsets[mine, left : left + QUERIES]
            multiply_row(near[0][row], near[1][row], blocks, part, less, scores, done, step)
            done += len(part) * QUERIES * step
        begin[height] = done
        if free_blocks:
            part, less = queries[top:end, left : left + QUERIES], offsets[top:end, left : left + QUERIES]
            multiply_row(free[0][0], free[1][0], (0, free_blocks), part, less, scores, done, free_step)
        scored += select(
            scores, begin, first, (blocks[0] * LANES, step, free_step), box, half, (top, left, end - top, wide),
            QUERIES, frames, row_keys, errors, query_facts, bounds, mean, query, keys, table, labels, k, temperature,
            keep, out,
        )  # fmt: skip
    return scored
