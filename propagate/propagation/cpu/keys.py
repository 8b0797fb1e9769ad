"""Vectors rounded to int8 for the transfer step on a CPU; those of a memory can be kept from step to step."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int8, Int32, Int64, UInt32
from numpy import ndarray
from torch import Tensor

from propagate.threads import Run

_BAND = 4  # rows that a thread rounds at a time
_LANES = 16  # keys of a block


class Codes(NamedTuple):
    """Rounded keys, as `propagate.propagation.cpu.rounding.round_keys` gives them.

    Attributes:
        codes: one row of blocks for each row of the grid, or one for all of it; no blocks where there are no frames.
        scales, errors, lengths: of every key of a row, 16 to a block; 0 beyond the last key.
    """

    codes: UInt32[ndarray, "rows blocks fours 16"]
    scales: Float32[ndarray, "rows keys"]
    errors: Float32[ndarray, "rows keys"]
    lengths: Float32[ndarray, "rows keys"]


class RoundedKeys:
    """Rounded keys of the context frames. Kept from step to step, they save rounding the frames that stay.

    It serves one memory, and one step at a time. It takes as many bytes as the keys have channels, and 12 more, for
    every cell of every frame.
    """

    def __init__(self) -> None:
        self._mean = torch.empty(0)
        self._shape: tuple[int, ...] = ()
        self._parts: list[tuple[tuple[int, ...], Codes]] = []

    def update(
        self,
        loops: ModuleType,
        rows: Float[Tensor, "n h w c"],
        parts: tuple[Int64[ndarray, " near"], Int64[ndarray, " free"]],
        stamps: tuple[int, ...] | None,
        run: Run,
    ) -> tuple[Codes, Codes, Float32[Tensor, " c"]]:
        """The rounded keys of the frames inside the window and of the free ones, and the mean that was taken off first.

        Args:
            loops: `propagate.propagation.cpu.kernels`.
            rows: the keys of all frames.
            parts: which of these are inside the window, and which are free.
            stamps: a number for every frame, the same only if its keys are; None: nothing is known of them.
            run: see `propagate.threads.in_threads`.
        """
        numbers = [tuple(stamps[frame] if stamps else -1 for frame in part) for part in parts]
        shape = (*rows.shape[1:], *(len(part) for part in parts))
        if stamps is None or shape != self._shape:
            # any vector will do: this one is close to the keys' mean, which makes them short
            self._mean = rows[:, ::4, ::4].flatten(0, 2).float().mean(0)
            self._shape = shape
            self._parts = [((-1,) * len(part), _no_codes(shape, len(part), i == 1)) for i, part in enumerate(parts)]
        for i, (part, new) in enumerate(zip(parts, numbers, strict=True)):
            old, codes = self._parts[i]
            places = np.array([p for p in range(len(part)) if new[p] == -1 or new[p] != old[p]], np.int64)
            self._parts[i] = ((-1,) * len(part), codes)  # should rounding be interrupted
            _round(loops, rows, part[places], places, len(part), self._mean, codes, run)
            self._parts[i] = (new, codes)
        return self._parts[0][1], self._parts[1][1], self._mean


def _no_codes(shape: tuple[int, ...], frames: int, joined: bool) -> Codes:
    height, width, channels = shape[:3]
    rows, keys = (1, height * width * frames) if joined else (height, width * frames)
    blocks = -(-keys // _LANES)
    return Codes(
        np.zeros((rows, blocks, -(-channels // 4), _LANES), np.uint32),
        *(np.zeros((rows, blocks * _LANES), np.float32) for _ in range(3)),
    )


def _round(
    loops: ModuleType,
    rows: Float[Tensor, "n h w c"],
    frames: Int64[ndarray, " m"],
    places: Int64[ndarray, " m"],
    each: int,
    mean: Float32[Tensor, " c"],
    codes: Codes,
    run: Run,
) -> None:
    def one_band(band: tuple[int, int]) -> None:
        given, first, which = rows, 0, frames
        if rows.dtype != torch.float32:
            given, first, which = rows[frames, band[0] : band[1]].float(), band[0], np.arange(len(frames))
        loops.round_keys(given.numpy(), which, places, each, band, first, mean.numpy(), *codes)

    if len(frames):
        height = rows.shape[1]
        run(one_band, [(top, min(top + _BAND, height)) for top in range(0, height, _BAND)])


class RoundedQueries(NamedTuple):
    """As `propagate.propagation.cpu.rounding.round_queries` gives them; (scales, errors, lengths) are the facts."""

    codes: Int8[ndarray, "h v s"]
    offsets: Int32[ndarray, "h v"]
    facts: tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"], Float32[ndarray, "h w"]]


def rounded_queries(loops: ModuleType, rows: Float32[Tensor, "h w c"], multiple: int) -> RoundedQueries:
    """Every query's int8, the columns filled with zeros to a multiple of some number."""
    height, width, channels = rows.shape
    padded = -(-width // multiple) * multiple
    codes = np.zeros((height, padded, -(-channels // 4) * 4), np.int8)
    offsets = np.zeros((height, padded), np.int32)
    facts = np.empty((3, height, width), np.float32)
    loops.round_queries(rows.numpy(), codes, offsets, *facts)
    return RoundedQueries(codes, offsets, (facts[0], facts[1], facts[2]))
