"""Tensors in files of ours that are checked when they are read: a mark that says whose they are, and a checksum.

The checksum is a CRC-32 of the values, their shape and type, and the file's own name. It finds damage and files that
were mixed up, and runs at memory speed; it is no protection against somebody who may write the file.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from propagate.errors import InputError
from propagate.files.documents import parse_json

_NAME = "tensor"
_MAX_HEADER = 1 << 16


class DamagedError(Exception):
    """A file that is there does not hold what was written under its name."""


def write_tensor(path: Path, tensor: Float[Tensor, "..."], kind: str, name: str | None = None) -> None:
    """Write a tensor.

    Args:
        path: the file.
        tensor: any shape and type, on any device.
        kind: the mark.
        name: that the file is to be read under; None: the path's.

    Raises:
        OSError: it cannot be written.
    """
    content = tensor.detach().cpu().contiguous()
    about = {"kind": kind, "checksum": _checksum(content, kind, path.name if name is None else name)}
    path.write_bytes(save({_NAME: content}, about))


def read_tensor(path: Path, kind: str) -> Float[Tensor, "..."] | None:
    """Read a tensor; None where there is no file.

    Args:
        path: the file. A link is not followed.
        kind: the mark.

    Raises:
        DamagedError: the file is damaged, of another kind, or was written under another name.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(error.strerror) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError("it is no file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read()
            about = _metadata(content)
            tensor: Tensor = load(content)[_NAME]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DamagedError("it cannot be read") from error
    if about.get("kind") != kind or about.get("checksum") != _checksum(tensor, kind, path.name):
        raise DamagedError("its checksum is another")
    return tensor


def is_marked(path: Path, kind: str) -> bool:
    """Return whether a file has the mark. A link has not."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            return _metadata(file.read(_MAX_HEADER)).get("kind") == kind
    except (OSError, ValueError):
        return False


def _metadata(content: bytes) -> dict[str, object]:
    """The metadata at the beginning of a safetensors file.

    Raises:
        ValueError: it has none.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + length or length > _MAX_HEADER:
        raise ValueError("no header")
    try:
        header = parse_json(content[8 : 8 + length].decode(), "The header")
    except InputError as error:
        raise ValueError(error.message) from error
    about = header.get("__metadata__") if isinstance(header, dict) else None
    return about if isinstance(about, dict) else {}


def _checksum(tensor: Tensor, kind: str, name: str) -> str:
    about = json.dumps([kind, name, str(tensor.dtype), list(tensor.shape)]).encode()
    values = tensor.reshape(-1).view(torch.uint8).numpy().data
    return f"{zlib.crc32(values, zlib.crc32(about)):08x}"
