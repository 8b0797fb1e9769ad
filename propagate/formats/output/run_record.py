"""run.json, the record of a run: settings, versions, input."""

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
    """Write `run.json` atomically into an existing folder, in UTF-8, with sorted keys, and return its path.

    Paths, NumPy numbers and arrays, fractions, tuples and sets become JSON values. TypeError for another value,
    ValueError for a NaN or an infinity, InputError if the file cannot be written.
    """
    path = Path(folder) / FILE_NAME
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(record, sort_keys=True), encoding="utf-8")
    return path


def json_text(document: Any, *, sort_keys: bool = False) -> str:
    r"""Return indented JSON that can be encoded and printed, whatever names it contains. See `write_run_record`.

    Control characters become JSON escapes; a byte that is not UTF-8 becomes the text `\xe9`, as in `printable`.
    """
    text = json.dumps(document, sort_keys=sort_keys, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    return _UNSAFE.sub(_escaped, text) + "\n"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def settings_hash(resolved: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the settings as canonical JSON (sorted keys, no spaces, UTF-8), in hexadecimal.

    The order of lists matters; 1 and 1.0 differ, as they do in JSON. Values and errors as `write_run_record`.
    """
    text = json.dumps(
        resolved, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
    )
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _plain(value: object) -> Any:
    if isinstance(value, Path | Fraction):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value: {value!r}")
