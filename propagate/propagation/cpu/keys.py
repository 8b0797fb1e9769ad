"""Vectors quantized to int8 for the transfer step on a CPU; the keys of a memory are cached from step to step."""

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
    """Output of `propagate.propagation.cpu.rounding.round_keys`; scales and so on are 0 beyond the last key."""

    codes: UInt32[ndarray, "rows blocks fours 16"]
    scales: Float32[ndarray, "rows keys"]
    errors: Float32[ndarray, "rows keys"]
    lengths: Float32[ndarray, "rows keys"]


class RoundedKeys:
    """A cache of rounded keys for one memory: (channels + 12) bytes for every cell of every frame."""

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
        """Return the rounded keys of the frames inside the window and of the free ones, and the mean subtracted first.

        `rows` has the keys of all frames, `parts` the numbers of both kinds of frames, `stamps` a version of each
        frame's keys (None: round all), `loops` is `propagate.propagation.cpu.kernels`.
        """
        numbers = [tuple(stamps[frame] if stamps else -1 for frame in part) for part in parts]
        shape = (*rows.shape[1:], *(len(part) for part in parts))
        if stamps is None or shape != self._shape:
            # any vector works: this one is close to the keys' mean, which makes them short
            self._mean = rows[:, ::4, ::4].flatten(0, 2).float().mean(0)
            self._shape = shape
            self._parts = [((-1,) * len(part), _no_codes(shape, len(part), i == 1)) for i, part in enumerate(parts)]
        for i, (part, new) in enumerate(zip(parts, numbers, strict=True)):
            old, codes = self._parts[i]
            places = np.array([p for p in range(len(part)) if new[p] == -1 or new[p] != old[p]], np.int64)
            self._parts[i] = ((-1,) * len(part), codes)  # in case rounding is interrupted
            if len(places):
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
    loops: ModuleType, rows: Tensor, frames: ndarray, places: ndarray, each: int, mean: Tensor, codes: Codes, run: Run
) -> None:
    def one_band(band: tuple[int, int]) -> None:
        given, first, which = rows, 0, frames
        if rows.dtype != torch.float32:
            given, first, which = rows[frames, band[0] : band[1]].float(), band[0], np.arange(len(frames))
        loops.round_keys(given.numpy(), which, places, each, band, first, mean.numpy(), *codes)

    height = rows.shape[1]
    run(one_band, [(top, min(top + _BAND, height)) for top in range(0, height, _BAND)])


class RoundedQueries(NamedTuple):
    """Output of `propagate.propagation.cpu.rounding.round_queries`; the facts are (scales, errors, lengths)."""

    codes: Int8[ndarray, "h v s"]
    offsets: Int32[ndarray, "h v"]
    facts: tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"], Float32[ndarray, "h w"]]


def rounded_queries(loops: ModuleType, rows: Float32[Tensor, "h w c"], multiple: int) -> RoundedQueries:
    """Round every query to int8, the columns padded with zeros to a multiple."""
    height, width, channels = rows.shape
    padded = -(-width // multiple) * multiple
    codes = np.zeros((height, padded, -(-channels // 4) * 4), np.int8)
    offsets = np.zeros((height, padded), np.int32)
    facts = np.empty((3, height, width), np.float32)
    loops.round_queries(rows.numpy(), codes, offsets, *facts)
    return RoundedQueries(codes, offsets, (facts[0], facts[1], facts[2]))
