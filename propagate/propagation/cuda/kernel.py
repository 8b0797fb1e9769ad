"""The Triton kernel of `cuda.transfer`: scores, selection, softmax and labels of a tile of queries, in one launch."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _number(position, frames, top, left, region_width, area, width, cells, mask):
    """Return number, row and column of the key at a position among the region's cells, frame after frame."""
    cell = position % area
    row = top + cell // region_width
    column = left + cell % region_width
    frame = tl.load(frames + position // area, mask=mask, other=0)
    return frame * cells + row * width + column, row, column


@triton.jit
@no_type_check
def _scan(
    best, places, query, keys, own, row, column, inside, slots, frames, count, top, left, region_width, area, width,
    cells, reach, limit, WINDOWED: tl.constexpr, CIRCLE: tl.constexpr, CHANNELS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Merge the keys of `count` frames' regions into the lists of the best."""
    place = tl.arange(0, BLOCK_KEYS)
    for start in range(0, count * area, BLOCK_KEYS):
        known = start + place < count * area
        number, key_row, key_column = _number(start + place, frames, top, left, region_width, area, width, cells, known)
        key_rows = keys + number.to(tl.int64) * CHANNELS
        scores = tl.zeros((own.shape[0], BLOCK_KEYS), dtype=tl.float32)
        for first in range(0, CHANNELS, BLOCK_CHANNELS):
            channel = first + tl.arange(0, BLOCK_CHANNELS)
            within = channel < CHANNELS
            asked = tl.load(
                query + own[:, None] * CHANNELS + channel[None, :], mask=inside[:, None] & within[None, :], other=0.0
            )
            found = tl.load(key_rows[None, :] + channel[:, None], mask=known[None, :] & within[:, None], other=0.0)
            scores = tl.dot(asked, found, scores)
        visible = inside[:, None] & known[None, :]
        if WINDOWED:
            dy = key_row[None, :] - row[:, None]
            dx = key_column[None, :] - column[:, None]
            if CIRCLE:
                visible &= dy * dy + dx * dx <= limit
            else:
                visible &= (tl.abs(dy) <= reach) & (tl.abs(dx) <= reach)
        scores = tl.where(visible, scores, -float("inf"))

        # Few keys of a block enter a list: each pass inserts the best key of every query, and the passes end when no
        # query's best enters. A key rejected once stays rejected.
        highest, at = tl.max(scores, 1, return_indices=True)
        lowest, slot = tl.min(best, 1, return_indices=True)
        while tl.max((highest > lowest).to(tl.int32), 0) > 0:
            better = highest > lowest
            taken, _, _ = _number(start + at, frames, top, left, region_width, area, width, cells, better)
            replaced = better[:, None] & (slots[None, :] == slot[:, None])
            best = tl.where(replaced, highest[:, None], best)
            places = tl.where(replaced, taken[:, None], places)
            scores = tl.where(place[None, :] == at[:, None], -float("inf"), scores)
            highest, at = tl.max(scores, 1, return_indices=True)
            lowest, slot = tl.min(best, 1, return_indices=True)
    return best, places


# else numbers that are 1 or multiples of 16 become constants, and each video's first frames wait for the compiler
_NUMBERS = ["bound", "free", "height", "width", "kinds", "reach", "limit", "top_k"]


@triton.jit(do_not_specialize=_NUMBERS)
@no_type_check
def transfer(
    query, exact_query, keys, labels, result, frames, bound, free, height, width, kinds, reach, limit, top_k,
    sharpness, CIRCLE: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr, TALL: tl.constexpr,
    WIDE: tl.constexpr, BLOCK_KEYS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the labels of one tile of queries, TALL rows and WIDE columns; one program per tile.

    Args:
        query, exact_query: (h, w, CHANNELS) in the keys' dtype, and in float32.
        keys, labels: (n, h, w, CHANNELS) float16 or bfloat16, and (n, kinds, h, w) float32.
        result: (kinds, h, w) float32, written.
        frames: (bound + free,) int32: numbers of the frames searched within the window, then of the others.
        reach, limit: the largest |dy| and |dx| inside the window; the largest dy^2 + dx^2 inside a circle.
        sharpness: 1 / temperature.
        SLOTS: length of a query's list, a power of two, at least top_k.
        TALL, WIDE, BLOCK_KEYS, BLOCK_CHANNELS: powers of two; blocks are at least 16, like TALL * WIDE.
    """
    across = tl.cdiv(width, WIDE)
    top = tl.program_id(0) // across * TALL
    left = tl.program_id(0) % across * WIDE
    tile = tl.arange(0, TALL * WIDE)
    row = top + tile // WIDE
    column = left + tile % WIDE
    inside = (row < height) & (column < width)
    cells = height * width
    own = row * width + column

    slots = tl.arange(0, SLOTS)
    # slots beyond the k-th are never the lowest
    none = tl.where(slots < top_k, -float("inf"), float("inf"))
    best = tl.zeros((TALL * WIDE, SLOTS), dtype=tl.float32) + none[None, :]
    places = tl.zeros((TALL * WIDE, SLOTS), dtype=tl.int32)
    near_top, near_left = tl.maximum(top - reach, 0), tl.maximum(left - reach, 0)
    near_width = tl.minimum(left + WIDE + reach, width) - near_left
    near_area = (tl.minimum(top + TALL + reach, height) - near_top) * near_width
    best, places = _scan(
        best, places, query, keys, own, row, column, inside, slots, frames, bound, near_top, near_left, near_width,
        near_area, width, cells, reach, limit, True, CIRCLE, CHANNELS, BLOCK_KEYS, BLOCK_CHANNELS,
    )  # fmt: skip
    best, places = _scan(
        best, places, query, keys, own, row, column, inside, slots, frames + bound, free, 0, 0, width, cells, width,
        cells, reach, limit, False, CIRCLE, CHANNELS, BLOCK_KEYS, BLOCK_CHANNELS,
    )  # fmt: skip

    # weights use scores of the float32 query: its rounding affects only which keys are selected
    weighed = (slots < top_k)[None, :] & (best > -float("inf"))
    for slot in range(top_k):
        mine = slots[None, :] == slot
        rows = keys + tl.sum(tl.where(mine, places, 0), 1).to(tl.int64) * CHANNELS
        products = tl.zeros((TALL * WIDE, BLOCK_CHANNELS), dtype=tl.float32)
        for first in range(0, CHANNELS, BLOCK_CHANNELS):
            channel = first + tl.arange(0, BLOCK_CHANNELS)
            there = inside[:, None] & (channel < CHANNELS)[None, :]
            asked = tl.load(exact_query + own[:, None] * CHANNELS + channel[None, :], mask=there, other=0.0)
            products += asked * tl.load(rows[:, None] + channel[None, :], mask=there, other=0.0).to(tl.float32)
        best = tl.where(mine, tl.sum(products, 1)[:, None], best)

    highest = tl.max(tl.where(weighed, best, -float("inf")), 1)
    weights = tl.where(weighed, tl.exp((best - highest[:, None]) * sharpness), 0.0)
    # at least 1 where there is any key, and without one all weights are 0
    weights /= tl.maximum(tl.sum(weights, 1), 1.0)[:, None]
    frame = (places // cells).to(tl.int64)
    given = labels + frame * kinds * cells + places % cells
    written = result + own
    for _ in range(kinds):
        tl.store(written, tl.sum(weights * tl.load(given, mask=weighed, other=0.0), 1), mask=inside)
        given += cells
        written += cells
