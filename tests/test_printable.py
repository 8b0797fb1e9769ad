"""Names and text that can be printed and encoded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from propagate.errors import InputError
from propagate.printable import printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (os.fsdecode(b"caf\xe9.mp4"), r"caf\xe9.mp4"),
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202egnp.exe\u2028", r"\u202egnp.exe\u2028"),
        ("\ud800", r"\ud800"),
        ("\x9b31m", r"\x9b31m"),
        ("Größe 東京\u3000🎬 \u200d", "Größe 東京\u3000🎬 \u200d"),
        (Path("a") / "b.png", str(Path("a") / "b.png")),
    ],
)
def test_printable(given: str | Path, shown: str) -> None:
    assert printable(given) == shown == printable(shown)
    assert shown.encode()


def test_errors_can_be_printed() -> None:
    name = os.fsdecode(b"caf\xe9\x1b[2J.mp4")
    error = InputError(f"{name} is empty.", f"Copy {name} again.")
    assert (error.message, error.remedy) == (r"caf\xe9\x1b[2J.mp4 is empty.", r"Copy caf\xe9\x1b[2J.mp4 again.")
    assert str(error) == f"{error.message} {error.remedy}"
