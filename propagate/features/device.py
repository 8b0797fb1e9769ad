"""Which device a model runs on."""

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


def _remedy() -> str:
    return f"Available here: auto, {', '.join(available_devices())}."
