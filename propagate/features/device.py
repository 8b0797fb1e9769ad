"""Which device a model runs on, in which precision, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import nn

from propagate.errors import UsageError


def resolve_device(device: str) -> torch.device:
    """ "auto" is CUDA where there is one, then MPS, then the CPU; anything else is taken by name.

    Raises:
        UsageError: no such device here.
    """
    if device == "auto":
        return torch.device(available_devices()[0])
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device}: there is no such kind of device.", _remedy()) from error
    if resolved.type not in available_devices() or (
        resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(f"device {device} is not available on this machine.", _remedy())
    return resolved


def available_devices() -> list[str]:
    """Kinds of devices that can be used here, the preferred one first."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 where the device computes in it, else float32; anything else is taken by name."""
    if dtype == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    named: torch.dtype = getattr(torch, dtype)
    return named


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by instructions of its own; elsewhere it is slower than float32.

    CPUs with AVX-512 BF16 or AMX, and NVIDIA GPUs from Ampere (compute capability 8.0) on; of others it is not known.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch tells of these two since 2.6, by functions that are not public
    told = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in told)


def compile_blocks(network: nn.Module, *taps: nn.Module) -> None:
    """Give a network to `torch.compile`, in place: the largest of its parts that have no tap inside.

    What ends a pass at a tap, or looks at its output, is a hook on it, and would not be called inside compiled code.
    The first picture of each size waits for the compiler. The features differ from those that are not compiled by
    rounding: operations are joined. A dry run, whose tensors have no content, goes through the parts as they were.

    Args:
        network: or a list of its blocks, as they will be used: on their device, in their precision.
        taps: modules of it at which passes end or are looked at.
    """
    for part in _parts(network, set(taps)):
        part.forward = _compiled(part.forward)


def _parts(module: nn.Module, taps: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest parts without a tap inside; a lone layer is not worth the calls."""
    inner = set(module.modules()) - {module}
    if inner & taps or isinstance(module, nn.ModuleList):
        for child in module.children():
            yield from _parts(child, taps)
    elif inner:
        yield module


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(forward)

    @wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.exc import BackendCompilerFailed, InternalTorchDynamoError
        from torch._guards import active_fake_mode

        if active_fake_mode() is not None:
            return forward(*args, **kwargs)
        try:
            return compiled(*args, **kwargs)
        except (BackendCompilerFailed, InternalTorchDynamoError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"features.compile = true: the network cannot be compiled here ({cause}).",
                "Install a C++ compiler (g++ or clang++), or set features.compile=false.",
            ) from error

    return call


def _remedy() -> str:
    return f"Available here: auto, {', '.join(available_devices())}."
