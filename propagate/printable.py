"""Names and foreign text made fit for messages, records and terminals."""

from __future__ import annotations

import re
from pathlib import Path

# Control characters, lone surrogates (bytes of a name that are not UTF-8), line and paragraph separators, and the
# characters that turn the direction of writing: whatever a terminal obeys or an encoder refuses.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str | Path) -> str:
    r"""Return a path or text that can be printed and encoded, on one line.

    A byte of a name that is not UTF-8 becomes `\xe9`, a control character `\x1b`, a line break `\n`; everything else
    stays, so that the result of a second call is the same.

    Args:
        text: a path, a file's name, or text of a file or library.
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for the byte 0x80 to 0xff (PEP 383)
        code -= 0xDC00
    return _SHORT.get(character, f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
