"""Where a model runs, in which precision, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import nn

from propagate.errors import UsageError


def resolve_device(device: str) -> torch.device:
    """Return a device by name, or raise a UsageError; "auto" is CUDA if available, then MPS, then the CPU."""
    available = available_devices()
    remedy = f"Available here: auto, {', '.join(available)}."
    if device == "auto":
        return torch.device(available[0])
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device}: there is no such kind of device.", remedy) from error
    if resolved.type not in available or (
        resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(f"device {device} is not available on this machine.", remedy)
    return resolved


def available_devices() -> list[str]:
    """Return the kinds of devices that this machine has, the preferred one first."""
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, is_usable in usable.items() if is_usable]


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return a dtype by name; "auto" is bfloat16 where the device computes in it, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    named: torch.dtype = getattr(torch, dtype)
    return named


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16; without them it is slower than float32.

    CPUs with AVX-512 BF16 or AMX have them, and NVIDIA GPUs from Ampere (compute capability 8.0) on.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # private functions of torch since 2.6
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in queries)


def compile_blocks(network: nn.Module, *taps: nn.Module) -> None:
    """Apply `torch.compile` in place to the largest modules of a network that contain no tap.

    Taps have hooks, which compiled code would not call. The first picture of each size waits for the compiler. The
    features change by rounding, because operations are fused. Dry runs take the original modules. The network (or list
    of blocks) must have its final device and precision.
    """
    for part in _parts(network, set(taps)):
        part.forward = _compiled(part.forward)


def _parts(module: nn.Module, taps: set[nn.Module]) -> Iterator[nn.Module]:
    """Yield the largest modules without a tap inside; a lone layer is not worth the calls."""
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
