"""Where a vision transformer's patches are: its learned table brought to another grid, and DINOv3's rotation.

Both are computed anew at every call, which is cheap beside the network; nothing depends on earlier frame sizes.
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
    """How a learned table of positions is brought to another grid; bicubic in float32 in any case.

    Attributes:
        offset: added to the new grid's sides, and only to the step between samples: DINO, DINOv2 and DIFT's OpenCLIP
            have 0.1, which was meant against rounding and moves the samples by up to half a cell. 0: none.
        antialias: low-pass where the grid becomes coarser: DINOv2 with registers.
    """

    offset: float
    antialias: bool = False


def interpolate_positions(
    table: Float[Tensor, "1 n d"], trained: tuple[int, int], grid: tuple[int, int], rule: PositionRule
) -> Float[Tensor, "1 m d"]:
    """The table of a class token and the trained grid's cells, for the cells of another grid.

    Args:
        table: (1, 1 + rows * columns, D), the class token's first, row after row.
        trained: (rows, columns) of it.
        grid: (rows, columns) wanted.
        rule: how.

    Returns:
        (1, 1 + rows * columns, D) in the table's dtype; the table itself where the grids agree.
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
    """DINOv3's rotary angles of all patches; takes the place of the module in transformers.

    That one keeps the coordinates of every size it has seen in a cache of the process, tensors without content from an
    estimate of memory among them. The angles are the same: cell centers scaled to -1 .. 1 per axis, times 2 pi over
    powers of the base.

    Args:
        base: of the wavelengths (100 in the published models).
        head_channels: of an attention head; a multiple of 4.
        patch: pixels of a patch's side.
    """

    def __init__(self, base: float, head_channels: int, patch: int) -> None:
        super().__init__()
        self.base, self.head_channels, self.patch = base, head_channels, patch

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """(rows * columns, head_channels) cosines and sines in the pixels' dtype, computed in float32."""
        *_, height, width = pixels.shape
        rows, columns = (
            (torch.arange(side // self.patch, dtype=torch.float32, device=pixels.device) + 0.5)
            / (side // self.patch)
            * 2
            - 1
            for side in (height, width)
        )
        exponents = torch.arange(0, 1, 4 / self.head_channels, dtype=torch.float32, device=pixels.device)
        centers = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        angles = (2 * math.pi * centers[:, :, None] / self.base**exponents).flatten(1).tile(2)
        return angles.cos().to(pixels.dtype), angles.sin().to(pixels.dtype)
