"""The transfer step on a GPU: one Triton kernel, with a half-precision memory.

A program of the kernel takes a tile of queries, reads the keys they can reach in blocks, and keeps each query's k best
in registers; scores are never written to memory. The scores that select the best keys are half-precision products
accumulated in float32: the query is rounded to the keys' dtype. By Cauchy and Schwarz their error is at most u |q| |k|
(`rounding`), for features of unit length 2^-11 in float16 and 2^-8 in bfloat16. So a missed key scores within twice
that of a selected one. The weights come from scores of the float32 query with the keys as stored: where the k-th best
key is clear, the labels equal those of the torch backend within float32 rounding.
"""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from propagate.errors import PropagateWarning
from propagate.propagation.window import Keys, Labels, Query, Rule, Soft, Window, are_plain, load_kernels, split_frames

MOST_TOP_K = 32  # the lists of the best lie in registers, and each insertion costs a pass over the query's list
_LARGEST = 3e38  # about the largest float32


class SlowTransferWarning(PropagateWarning):
    """The kernel does not run on this GPU; the torch backend replaces it."""


class Blocks(NamedTuple):
    """Block sizes of one program of the kernel: powers of two, at least 16 for matrix products."""

    tile: tuple[int, int] = (4, 8)  # (rows, columns) of queries: fewer idle the tensor cores, more idle part of the GPU
    keys: int = 128
    channels: int = 64


@cache
def kernel() -> ModuleType | None:
    """Return the kernel's module; None without Triton, which torch for CUDA installs on Linux."""
    return load_kernels("propagate.propagation.cuda.kernel")


def rounding(dtype: torch.dtype) -> float:
    """Return the largest error of a selecting score, for features of unit length: half the dtype's epsilon."""
    return torch.finfo(dtype).eps / 2


def can_transfer(query: Tensor, keys: Tensor, labels: Tensor, rule: Rule) -> bool:
    """Return whether `transfer` supports these tensors, and its kernel runs on their device.

    Float32 keys need float32 scores, and ties="keep" a list of any length: both stay with the torch backend.
    """
    return (
        are_plain("cuda", query, keys, labels)
        and query.dtype == labels.dtype == torch.float32
        and keys.dtype in (torch.float16, torch.bfloat16)
        and rule.ties == "cut"
        and rule.top_k <= MOST_TOP_K
        and min(*keys.shape, *labels.shape) > 0
        and kernel() is not None
        and runs_on(keys.device)
    )


@cache
def runs_on(device: torch.device) -> bool:
    """Try to compile and run the kernel there; a `SlowTransferWarning` says why it fails.

    Triton's tensor-core products need compute capability 8.0, its launcher a C compiler.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    keys = torch.ones(1, 16, 1, 1, dtype=torch.float16, device=device)
    try:
        transfer(keys[0].float(), keys, keys[:, :1].float(), Rule(None, 1, 1.0))
        torch.cuda.synchronize(device)
    except Exception as error:  # compiler, linker, driver and Triton raise unrelated classes
        cause = f"The Triton kernel of the transfer step does not run here ({type(error).__name__}: {error})."
        warnings.warn(f"{cause} The slower torch backend replaces it.", SlowTransferWarning, stacklevel=2)
        return False
    return True


@torch.no_grad()
def transfer(query: Query, keys: Keys, labels: Labels, rule: Rule, *, blocks: Blocks | None = None) -> Soft:
    """See `propagate.propagation.affinity.propagate_labels`; ties must be "cut", top_k up to `MOST_TOP_K`.

    Keys are float16 or bfloat16, and copied unless in `torch.channels_last`. `blocks` affect the labels only where
    `rounding` makes keys indistinguishable.
    """
    loaded = kernel()
    assert loaded is not None
    blocks = blocks or Blocks()
    frames, channels, height, width = keys.shape
    bound, free, reach, limit = split_by_reach(rule.window, frames, (height, width))
    exact_rows = query.permute(1, 2, 0).contiguous()
    result = torch.empty(labels.shape[1:], dtype=labels.dtype, device=labels.device)
    tall, wide = blocks.tile
    programs = (-(-height // tall) * -(-width // wide),)
    order = torch.tensor([*bound, *free], dtype=torch.int32, device=keys.device)
    key_rows = keys.permute(0, 2, 3, 1).contiguous()
    arrays = exact_rows.to(keys.dtype), exact_rows, key_rows, labels.contiguous(), result, order
    sizes = len(bound), len(free), height, width, labels.shape[1], reach, limit, rule.top_k
    with torch.cuda.device(keys.get_device()):  # Triton launches on the current one; -1, of a CPU, does nothing
        loaded.transfer[programs](
            *arrays,
            *sizes,
            min(1 / rule.temperature, _LARGEST),
            CIRCLE=rule.window is not None and rule.window.shape == "circle",
            CHANNELS=channels,
            SLOTS=1 << (rule.top_k - 1).bit_length(),
            TALL=tall,
            WIDE=wide,
            BLOCK_KEYS=blocks.keys,
            BLOCK_CHANNELS=blocks.channels,
        )
    return result


def split_by_reach(window: Window | None, frames: int, grid: tuple[int, int]) -> tuple[list[int], list[int], int, int]:
    """Frames inside the window, frames searched everywhere, the largest |dy| or |dx| and the largest dy^2 + dx^2."""
    bound, free = split_frames(window, frames)
    if window is None or window.reach < 0:
        return [], free, 0, 0
    reach = min(window.reach, max(grid))
    offsets = torch.arange(reach + 1)
    inside = window.contains(offsets[:, None], offsets[None])
    limit = int((offsets[:, None] ** 2 + offsets[None] ** 2)[inside].max())
    return bound, free, reach, limit
