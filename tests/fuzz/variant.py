"""The types that define a kind of input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.command import Ending

OUT = "out"
SMALL = ("-c", "rgb", "--set", "video.short_side=48", "--device", "cpu")
QUICK = (*SMALL, "--no-overlay", "-o", OUT, "-vv")

Vary = Callable[[Random], Sequence[str]]
Check = Callable[[Path, Sequence[str], Ending], str | None]


@dataclass(frozen=True)
class Variant:
    """One valid input and the command that reads it.

    Attributes:
        name: within its kind.
        folder: is copied for each case; the command runs in the copy.
        targets: glob patterns of what is damaged in it; none: the arguments alone are.
        arguments: of `propagate`.
        vary: further arguments, from the case's random numbers.
        repeated: the command's results are compared with those of a second run.
        valid: the undamaged input must be accepted.
        check: looks at the folder after an exit code of 0, and says what is wrong there without a word.
    """

    name: str
    folder: Path
    targets: Sequence[str]
    arguments: Sequence[str]
    vary: Vary | None = None
    repeated: bool = True
    check: Check | None = None
    valid: bool = True


@dataclass(frozen=True)
class Kind:
    """A kind of inputs.

    Attributes:
        make: writes the inputs below a folder; a variant each.
        share: how many of the cases, against 1 of the other kinds.
    """

    make: Callable[[Path], Iterator[Variant]]
    share: float = 1.0


def one_of(*choices: Sequence[str]) -> Vary:
    """Further arguments: one of these."""
    return partial(_choose, choices)


def _choose(choices: Sequence[Sequence[str]], rng: Random) -> Sequence[str]:
    return rng.choice(choices)


def as_expected(*suffixes: str) -> Check:
    """The results are those of the undamaged input."""
    return partial(_compare, suffixes)


def _compare(suffixes: Sequence[str], place: Path, _arguments: Sequence[str], _ending: Ending) -> str | None:
    for path in sorted((place / "expected").rglob("*")):
        written = place / OUT / path.relative_to(place / "expected")
        if path.suffix in suffixes and (not written.is_file() or written.read_bytes() != path.read_bytes()):
            return f"{written.relative_to(place)} is not what the undamaged input gives"
    return None
