"""Positions of a vision transformer's patches: its learned table on another grid, and DINOv3's rotation.

Both are computed at every call, which is cheap beside the network; nothing depends on earlier frame sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class PositionRule:
    """How a learned table of positions is interpolated to another grid, bicubically in float32.

    The offset is added to the new grid's sides, for the step between samples only. DINO, DINOv2 and DIFT's OpenCLIP
    have 0.1, meant against rounding; it moves the samples by up to half a cell.
    """

    offset: float
    antialias: bool = False  # low-pass filter for a coarser grid: DINOv2 with registers


def interpolate_positions(
    table: Float[Tensor, "1 n d"], trained: tuple[int, int], grid: tuple[int, int], rule: PositionRule
) -> Float[Tensor, "1 m d"]:
    """Interpolate a table (1, 1 + rows * columns, D) from its `trained` grid (rows, columns) to another grid.

    The class token comes first, then the cells row after row. Equal grids return the table itself.
    """
    if trained == grid:
        return table
    patches = table[:, 1:].float().reshape(1, *trained, -1).permute(0, 3, 1, 2)
    if rule.offset:
        scale = tuple((cells + rule.offset) / own for cells, own in zip(grid, trained, strict=True))
        moved = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=rule.antialias)
    else:
        moved = F.interpolate(patches, size=grid, mode="bicubic", antialias=rule.antialias)
    return torch.cat([table[:, :1], moved.flatten(2).transpose(1, 2).to(table.dtype)], 1)


class RotaryPositions(nn.Module):
    """DINOv3's rotary angles of all patches; replaces the module in transformers.

    That one caches the coordinates of every size for the whole process, even tensors without content from a dry run.
    The angles are the same: cell centers scaled to -1 .. 1 per axis, times 2 pi over powers of the base (100 in the
    published models). `head_channels` of an attention head are a multiple of 4, `patch` is in pixels.
    """

    def __init__(self, base: float, head_channels: int, patch: int) -> None:
        super().__init__()
        self.base, self.head_channels, self.patch = base, head_channels, patch

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Return (rows * columns, head_channels) cosines and sines in the pixels' dtype, computed in float32."""
        sides = (side // self.patch for side in pixels.shape[-2:])
        rows, columns = (
            (torch.arange(side, dtype=torch.float32, device=pixels.device) + 0.5) / side * 2 - 1 for side in sides
        )
        exponents = torch.arange(0, 1, 4 / self.head_channels, dtype=torch.float32, device=pixels.device)
        centers = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        angles = (2 * math.pi * centers[:, :, None] / self.base**exponents).flatten(1).tile(2)
        return angles.cos().to(pixels.dtype), angles.sin().to(pixels.dtype)
