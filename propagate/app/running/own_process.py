"""Work in a fresh process, so that its peak memory is its own."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from propagate.benchmarks.running.processes import children
from propagate.errors import OutOfMemoryError, PropagateError

ResultT = TypeVar("ResultT")


def in_own_process(work: Callable[[Callable[[], None]], ResultT], on_frame: Callable[[], None]) -> ResultT:
    """Do some work in a process of its own, and return what it returns. See `running.processes`.

    Args:
        work: gets a function that it calls after each frame; can be pickled, and so can its result.
        on_frame: is called here, for each of those calls.

    Raises:
        PropagateError: the work's own; or the process died, or failed in a way nobody thought of.
    """
    with children() as start:
        child = start(_work, work)
        try:
            while (message := child.connection.recv()) is None:
                on_frame()
        except (EOFError, OSError) as error:
            raise _death(child.ending()) from error
    outcome, value = message
    if outcome == "raised":
        raise value
    result: ResultT = value
    return result


def _work(connection: Connection, work: Callable[[Callable[[], None]], Any]) -> None:
    with suppress(EOFError, OSError):
        try:
            message: tuple[str, Any] = "done", work(lambda: connection.send(None))
        except PropagateError as error:
            message = "raised", error
        except MemoryError:
            message = "raised", OutOfMemoryError("Memory ran out.", "Lower video.short_side with --set.")
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            message = "raised", PropagateError(f"Something unexpected happened: {type(error).__name__}: {error}", trace)
        connection.send(message)
        with suppress(EOFError):
            connection.recv()  # the parent ends it


def _death(ending: str) -> PropagateError:
    """The error for a process that ended without a message."""
    if ending.startswith("killed"):
        return OutOfMemoryError(
            f"Its process was {ending}.",
            "The system does that where memory runs out: give a --max-memory, or close other programs.",
        )
    return PropagateError(f"Its process ended with {ending}.", "What it said stands above.")
