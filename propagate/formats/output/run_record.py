"""run.json: what a run was made with, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from propagate.files.atomic import atomic_path

FILE_NAME = "run.json"

_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def write_run_record(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Write `run.json`, whole or not at all: UTF-8, keys sorted, indented.

    Args:
        folder: an existing folder.
        record: JSON values; paths, NumPy numbers and arrays, fractions, tuples and sets are converted.

    Returns:
        The path of the file.

    Raises:
        InputError: it cannot be written.
        TypeError: the record holds something that is no JSON value.
        ValueError: it holds a NaN or an infinity, which JSON does not have.
    """
    path = Path(folder) / FILE_NAME
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(record, sort_keys=True), encoding="utf-8")
    return path


def json_text(document: Any, *, sort_keys: bool = False) -> str:
    r"""Return indented JSON that ends in a line break and can be encoded and shown whatever names it holds.

    Control characters are written as JSON's own escapes; a byte of a name that is not UTF-8, which no JSON can hold,
    becomes the text `\xe9`, as `printable` has it.

    Args:
        document: see `write_run_record`.
        sort_keys: by name.

    Raises:
        TypeError, ValueError: see `write_run_record`.
    """
    text = json.dumps(document, sort_keys=sort_keys, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    return _UNSAFE.sub(_escaped, text) + "\n"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def settings_hash(resolved: Mapping[str, Any]) -> str:
    """SHA-256 over the settings as canonical JSON (sorted keys, no spaces, UTF-8): 64 hexadecimal digits.

    The order of keys does not matter, the order of lists does; 1 and 1.0 differ, as they do in JSON.

    Args:
        resolved: all settings with their values; what `write_run_record` accepts.

    Raises:
        TypeError, ValueError: as `write_run_record`.
    """
    text = json.dumps(
        resolved, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
    )
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _plain(value: object) -> Any:
    """The JSON value of a type that json does not know."""
    if isinstance(value, Path | Fraction):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value: {value!r}")
