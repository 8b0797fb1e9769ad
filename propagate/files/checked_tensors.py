"""Tensors in files with a mark, which names their kind, and a checksum.

The checksum is a CRC-32 of the values, their shape and type, and the file's own name. It finds damage and files that
were mixed up, at memory speed; it is no protection against an attacker who can write the file.
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
    """An existing file does not contain the tensor that was written under its name."""


def write_tensor(path: Path, tensor: Float[Tensor, "..."], kind: str, name: str | None = None) -> None:
    """Write a tensor of any shape and type, with `kind` as its mark.

    `name` is the file's later name, under which it is read; None: the path's.
    """
    content = tensor.detach().cpu().contiguous()
    about = {"kind": kind, "checksum": _checksum(content, kind, path.name if name is None else name)}
    path.write_bytes(save({_NAME: content}, about))


def read_tensor(path: Path, kind: str) -> Float[Tensor, "..."] | None:
    """Read a tensor; None where there is no file. Links are not followed.

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
        raise DamagedError("it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read()
            about = _metadata(content)
            tensor: Tensor = load(content)[_NAME]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DamagedError("it cannot be read") from error
    if about.get("kind") != kind or about.get("checksum") != _checksum(tensor, kind, path.name):
        raise DamagedError("its checksum differs")
    return tensor


def is_marked(path: Path, kind: str) -> bool:
    """Return whether a file has the mark; false for a link."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            return _metadata(file.read(_MAX_HEADER)).get("kind") == kind
    except (OSError, ValueError):
        return False


def _metadata(content: bytes) -> dict[str, object]:
    """Return the metadata at the beginning of a safetensors file; ValueError where it has no header."""
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
