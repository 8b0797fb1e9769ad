"""Run one command in this process and return its result."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import typer

from propagate.errors import PropagateError

EXIT_CODES = (0, 2, 3, 4, 5, 6)
_TRACE = "Traceback (most recent call last):"
_NO_MEMORY = re.compile("[Cc]an't allocate|[Ii]nsufficient memory|not enough memory")  # of torch and OpenCV
_CHAINED = ("The above exception was the direct cause of", "During handling of the above exception")


@dataclass
class Ending:
    """The end of a command.

    Attributes:
        code: its exit code.
        output: of both streams.
        foreign: exceptions that are not ours and ended it, or one of its clips or threads, with their tracebacks.
        out_of_memory: an allocation failed.
    """

    code: int | None
    output: str
    foreign: list[str] = field(default_factory=list)
    out_of_memory: bool = False


@cache
def _command() -> Any:
    from propagate.app.program import app

    return typer.main.get_command(app)


def run_command(arguments: Sequence[str]) -> Ending:
    """Run `propagate` with these arguments in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    foreign: list[str] = []
    code: int | None = None
    cause: BaseException | None = None
    with _watched_threads(foreign), redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            _command().main([*arguments], prog_name="propagate")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            cause = end
        except BaseException as error:
            cause = error
            foreign.append("".join(traceback.format_exception(error)))
    output = "\n".join(stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams)  # type: ignore[attr-defined]
    chain = list(_chain(cause))
    # not where FFmpeg takes the numbers of a damaged file for sizes, which the message then says
    out_of_memory = code in (1, 5, None) and any(
        isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) for error in chain
    )
    if not foreign and code not in EXIT_CODES:
        first = next((error for error in chain if not isinstance(error, SystemExit | typer.Exit)), None)
        foreign.append(
            f"exit code {code}\n" + ("".join(traceback.format_exception(first)) if first else output[-3000:])
        )
    foreign += _foreign_traces(output)
    return Ending(code, output, foreign, out_of_memory)


def run_here(folder: Path, arguments: Sequence[str]) -> None:
    """Run a command that must succeed, to make an input; its folder is the working directory."""
    before = Path.cwd()
    os.environ["XDG_CACHE_HOME"] = str(folder / "xdg")
    os.chdir(folder)
    try:
        ending = run_command(arguments)
    finally:
        os.chdir(before)
    if ending.code != 0:
        raise RuntimeError(f"{arguments} in {folder} ended with {ending.code}:\n{ending.output}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _foreign_traces(output: str) -> list[str]:
    """Return the tracebacks among the messages of failed clips whose exception is not ours."""
    found = []
    for part in output.split(_TRACE)[1:]:
        lines = part.splitlines()
        last = next((line for line in lines[1:] if line and not line.startswith(" ")), "")
        if re.match(r"[\w.]+(:|$)", last) and not any(sign in part for sign in _CHAINED):
            name = last.partition(":")[0].rpartition(".")[2]
            if name not in _ours():
                found.append(_TRACE + part[:6000])
    return found


@cache
def _ours() -> frozenset[str]:
    """Return the names of our exceptions."""
    classes, found = [PropagateError], {"Interrupted"}
    while classes:
        kind = classes.pop()
        found.add(kind.__name__)
        classes += kind.__subclasses__()
    return frozenset(found)


@contextmanager
def _watched_threads(foreign: list[str]) -> Iterator[None]:
    """Count exceptions that Python only prints as findings, too."""

    def lost(about: Any) -> None:
        foreign.append("".join(traceback.format_exception(about.exc_type, about.exc_value, about.exc_traceback)))

    before = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = threading.excepthook = lost
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = before
