"""Which device a model runs on, and in which precision."""

from __future__ import annotations

import torch

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


def _remedy() -> str:
    return f"Available here: auto, {', '.join(available_devices())}."
