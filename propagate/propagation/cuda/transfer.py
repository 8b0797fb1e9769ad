"""The transfer step on a GPU: one Triton kernel, with a half-precision memory.

The definition is that of `affinity.propagate_labels`, which comes here where it can. A program of the kernel
takes a tile of queries, goes through the keys that some of them can reach in blocks, and keeps each query's k best in
registers; no score is ever written to memory.

The scores that decide which keys are the best are products of half-precision numbers, added up in float32: the query is
rounded to the keys' dtype. By Cauchy and Schwarz such a score is off by at most u |q| |k| (`rounding`), for features of
unit length 2^-11 in float16 and 2^-8 in bfloat16. So a key can only be missed whose score is within twice that of one
that is taken. The weights come from scores of the float32 query with the keys as they are stored: where the k-th best
key is clear, the labels are those of the torch way within float32's rounding.
"""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from propagate.errors import PropagateWarning
from propagate.propagation.window import Ties, Window

MOST_TOP_K = 32
"""The lists of the best lie in registers, and each key that gets in costs a pass over its query's list."""

_TILE = 4, 8  # queries of a program, (rows, columns): fewer leave tensor cores idle, more leave some of the GPU idle
_BLOCK_KEYS = 128
_BLOCK_CHANNELS = 64
_LARGEST = 3e38  # of float32, about


class SlowTransferWarning(PropagateWarning):
    """The kernel does not run on this GPU, and torch's operations take its place."""


class Blocks(NamedTuple):
    """What one program of the kernel takes at a time; powers of two, products of matrices need 16.

    Attributes:
        tile: (rows, columns) of queries.
        keys, channels: of one product.
    """

    tile: tuple[int, int] = _TILE
    keys: int = _BLOCK_KEYS
    channels: int = _BLOCK_CHANNELS


@cache
def kernel() -> ModuleType | None:
    """The kernel's module, or None where Triton is not to be had; torch for CUDA on Linux brings it along."""
    try:
        from propagate.propagation.cuda import kernel as affinity_triton_kernel
    except (ImportError, OSError):
        return None
    return affinity_triton_kernel


def rounding(dtype: torch.dtype) -> float:
    """The most by which a choosing score is off, for features of unit length: half of what the dtype tells apart."""
    return torch.finfo(dtype).eps / 2


def can_transfer(query: Tensor, keys: Tensor, labels: Tensor, top_k: int, ties: Ties) -> bool:
    """Whether `transfer` knows these tensors, and its kernel runs on their device.

    Float32 keys ask for float32 scores, and "keep" for a list without end: both stay with torch's operations.
    """
    return (
        type(query) is type(keys) is type(labels) is Tensor  # others may have no memory
        and query.device == keys.device == labels.device
        and keys.device.type == "cuda"
        and query.dtype == labels.dtype == torch.float32
        and keys.dtype in (torch.float16, torch.bfloat16)
        and ties == "cut"
        and top_k <= MOST_TOP_K
        and min(*keys.shape, *labels.shape) > 0
        and kernel() is not None
        and runs_on(keys.device)
    )


@cache
def runs_on(device: torch.device) -> bool:
    """Whether the kernel can be compiled and run there, by trying; a `SlowTransferWarning` says why not.

    Triton's tensor-core products ask for compute capability 8.0, its launcher for a C compiler.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    keys = torch.ones(1, 16, 1, 1, dtype=torch.float16, device=device)
    try:
        transfer(keys[0].float(), keys, keys[:, :1].float(), window=None, top_k=1, temperature=1.0)
        torch.cuda.synchronize(device)
    except Exception as error:  # what a compiler, linker, driver or Triton's own checks raise has no class in common
        warnings.warn(
            f"the transfer step's Triton kernel does not run here ({type(error).__name__}: {error}); torch's own "
            "operations do the step, more slowly",
            SlowTransferWarning,
            stacklevel=2,
        )
        return False
    return True


@torch.no_grad()
def transfer(
    query: Float32[Tensor, "c h w"],
    keys: Float[Tensor, "n c h w"],
    labels: Float32[Tensor, "n l h w"],
    *,
    window: Window | None,
    top_k: int,
    temperature: float,
    blocks: Blocks | None = None,
) -> Float32[Tensor, "l h w"]:
    """See `propagate.propagation.affinity.propagate_labels`, with `ties="cut"`.

    Args:
        query, keys, labels, window, temperature: as there; the keys in float16 or bfloat16, without a copy in
            `torch.channels_last`, the memory bank's layout.
        top_k: at most `MOST_TOP_K`.
        blocks: None: `Blocks()`. The labels do not depend on them but for keys that `rounding` cannot tell apart.
    """
    loaded = kernel()
    assert loaded is not None
    blocks = blocks or Blocks()
    frames, channels, height, width = keys.shape
    bound, free, reach, limit = _reach(window, frames, (height, width))
    exact_rows = query.permute(1, 2, 0).contiguous()
    result = torch.empty(labels.shape[1:], dtype=labels.dtype, device=labels.device)
    tall, wide = blocks.tile
    programs = (-(-height // tall) * -(-width // wide),)
    with torch.cuda.device(keys.get_device()):  # Triton launches on the current one; -1, of a CPU, does nothing
        loaded.transfer[programs](
            exact_rows.to(keys.dtype),
            exact_rows,
            keys.permute(0, 2, 3, 1).contiguous(),
            labels.contiguous(),
            result,
            torch.tensor([*bound, *free], dtype=torch.int32, device=keys.device),
            len(bound),
            len(free),
            height,
            width,
            labels.shape[1],
            reach,
            limit,
            top_k,
            min(1 / temperature, _LARGEST),
            CIRCLE=window is not None and window.shape == "circle",
            CHANNELS=channels,
            SLOTS=1 << (top_k - 1).bit_length(),
            TALL=tall,
            WIDE=wide,
            BLOCK_KEYS=blocks.keys,
            BLOCK_CHANNELS=blocks.channels,
        )
    return result


def _reach(window: Window | None, frames: int, grid: tuple[int, int]) -> tuple[list[int], list[int], int, int]:
    """Frames inside the window, frames that none binds, the largest |dy| or |dx| and the largest dy^2 + dx^2 inside."""
    everything = list(range(frames))
    if window is None:
        return [], everything, 0, 0
    free = [frame for frame in everything if frame in window.exempt]
    if window.reach < 0:
        return [], free, 0, 0
    reach = min(window.reach, max(grid))
    offsets = torch.arange(reach + 1)
    inside = window.contains(offsets[:, None], offsets[None])
    limit = int((offsets[:, None] ** 2 + offsets[None] ** 2)[inside].max())
    return [frame for frame in everything if frame not in window.exempt], free, reach, limit
