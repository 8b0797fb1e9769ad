"""Compiled parts of `kernels.select`, which documents the arguments: selection by coarse scores, exact scores."""

from typing import no_type_check

import numpy as np

from propagate.propagation.cpu.vectors import LANES, compiled, lane_maxima, lanes_reaching, prefetch

RUN = 16 * LANES  # neighbouring scores with 16 maxima: of every 16th score from the first, the second, ... one
_AHEAD = 3  # keys to prefetch


@compiled
@no_type_check
def insert(values, keys, value, key):
    """Insert into the descending list and drop its last; the lower key of equals comes first."""
    last = len(values) - 1
    if value > values[last] or (value == values[last] and key < keys[last]):
        at = last
        while at > 0 and (values[at - 1] < value or (values[at - 1] == value and keys[at - 1] > key)):
            values[at], keys[at] = values[at - 1], keys[at - 1]
            at -= 1
        values[at], keys[at] = value, key


@compiled
@no_type_check
def product(vector, key, table):
    """Return the exact score of a key in float32; with a table, the key holds indices into it."""
    total = np.float32(0)
    if table is None:
        for c in range(len(vector)):
            total += vector[c] * key[c]
    else:
        for c in range(len(vector)):
            total += vector[c] * table[key[c]]
    return total


@compiled
@no_type_check
def find(key, frames, bound_keys, row_keys, width):
    """Return (frame, row, column) of a key."""
    near, free = frames
    if key < bound_keys:
        row, key = key // row_keys, key % row_keys
        return near[key % len(near)], row, key // len(near)
    key -= bound_keys
    cell = key // len(free)
    return free[key % len(free)], cell // width, cell % width


@compiled
@no_type_check
def score_exactly(vector, keys, table, frames, bound_keys, row_keys, where, found, first):
    """Write exact scores of the keys listed from `first` on, prefetching their memory."""
    width, size = keys.shape[2], keys.shape[3] * keys.itemsize
    begin = keys.ctypes.data
    for i in range(first - _AHEAD, len(where)):
        if i + _AHEAD < len(where):
            frame, row, column = find(where[i + _AHEAD], frames, bound_keys, row_keys, width)
            address = begin + frame * keys.strides[0] + row * keys.strides[1] + column * keys.strides[2]
            for line in range(0, size, 64):
                prefetch(address + line)
        if i >= first:
            frame, row, column = find(where[i], frames, bound_keys, row_keys, width)
            found[i] = product(vector, keys[frame, row, column], table)


@compiled
@no_type_check
def list_runs(begin, key, length, address, runs, peaks, count):
    """Append runs (first score, first key, length) of neighbouring scores and their maxima; return the new count."""
    for start in range(0, length, RUN):
        size = min(RUN, length - start)
        runs[count, 0], runs[count, 1], runs[count, 2] = begin + start, key + start, size
        lane_maxima(address + 4 * (begin + start), size, peaks[count].ctypes.data)
        count += 1
    return count


@compiled
@no_type_check
def best_scores(scores, runs, peaks, best, keys):
    """Write the best scores of some runs and their keys; -infinity and -1 where there are fewer.

    The maxima belong to different keys, so the k-th best score is not below the k-th best maximum.
    """
    maxima = peaks.ctypes.data
    best[:], keys[:] = -np.inf, -1
    for run in range(len(runs)):
        lanes, lane = lanes_reaching(maxima + run * 4 * LANES, best[-1]), 0
        while lanes:
            if lanes & 1:
                insert(best, keys, peaks[run, lane], 0)
            lanes, lane = lanes >> 1, lane + 1
    floor = best[-1]
    best[:], keys[:] = -np.inf, -1
    for run in range(len(runs)):
        lanes, lane = lanes_reaching(maxima + run * 4 * LANES, floor), 0
        while lanes:
            if lanes & 1:
                for i in range(lane, runs[run, 2], LANES):
                    if scores[runs[run, 0] + i] >= floor:
                        insert(best, keys, scores[runs[run, 0] + i], runs[run, 1] + i)
            lanes, lane = lanes >> 1, lane + 1


@compiled
@no_type_check
def list_candidates(scores, runs, peaks, errors, worst_error, share, threshold, last, last_key, keys, count):
    """Append the keys whose score plus `share` of error reaches the threshold, and that rank after the last key."""
    maxima, least = peaks.ctypes.data, threshold - share * worst_error * np.float32(1.001)
    for run in range(len(runs)):
        lanes, lane = lanes_reaching(maxima + run * 4 * LANES, least), 0
        while lanes:
            if lanes & 1:
                for i in range(lane, runs[run, 2], LANES):
                    value, key = scores[runs[run, 0] + i], runs[run, 1] + i
                    after = value < last or (value == last and key > last_key)
                    if after and value + share * errors[key] >= threshold:
                        keys[count] = key
                        count += 1
            lanes, lane = lanes >> 1, lane + 1
    return count


@compiled
@no_type_check
def with_ties(found, where, best, place):
    """Return the best scores and their keys, then all others that equal the last of them, the lowest keys first."""
    # sorted and joined by hand: numba's own functions take two seconds to compile
    k, count = len(best), len(best)
    scores, keys = np.empty(k + len(found), np.float32), np.empty(k + len(found), np.int64)
    for i in range(k):
        scores[i], keys[i] = best[i], place[i]
    for i in range(len(found)):
        if found[i] == best[k - 1] and where[i] > place[k - 1]:
            at = count
            while at > k and keys[at - 1] > where[i]:
                keys[at] = keys[at - 1]
                at -= 1
            scores[count], keys[at] = best[k - 1], where[i]
            count += 1
    return scores[:count], keys[:count]
