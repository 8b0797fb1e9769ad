"""A large picture in windows of the size that a network was trained on, as A Tale of Two Features looks at it."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


def window_corners(size: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """Where windows of side x side pixels lie in a picture of (height, width): (y, x) each, row by row.

    They stand side by side; the last of a row or column is pushed back to the border. A picture that is smaller than a
    window has one, of its own size.
    """
    rows, columns = (_starts(length, side) for length in size)
    return [(y, x) for y in rows for x in columns]


def merge_windows(
    windows: Sequence[Float[Tensor, "b c h w"]], corners: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> Float[Tensor, "b c y x"]:
    """The windows' features on one grid, averaged where they overlap.

    Args:
        windows: features of each window.
        corners: (row, column) of its first cell.
        grid: (rows, columns) of the result, every cell of which has to be in a window.
    """
    batch, channels = windows[0].shape[:2]
    total = windows[0].new_zeros(batch, channels, *grid)
    count = windows[0].new_zeros(grid)
    for window, (row, column) in zip(windows, corners, strict=True):
        place = (..., slice(row, row + window.shape[-2]), slice(column, column + window.shape[-1]))
        total[place] += window
        count[place] += 1
    return total / count


def _starts(length: int, side: int) -> list[int]:
    last = max(length - side, 0)
    return sorted({min(start, last) for start in range(0, length, side)})
