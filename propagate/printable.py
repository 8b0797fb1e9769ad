"""Escape names and foreign text for messages, records and terminals."""

from __future__ import annotations

import re
from pathlib import Path

# characters that a terminal obeys or an encoder rejects: control characters, line and paragraph separators, changes of
# the writing direction, and lone surrogates (bytes of a name that are not UTF-8)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str | Path) -> str:
    r"""Return a path or foreign text as one printable line: with `\n`, `\x1b`, and `\xe9` for no UTF-8. Idempotent."""
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a surrogate escape of the byte 0x80 to 0xff (PEP 383)
        code -= 0xDC00
    return _SHORT.get(match[0], f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
