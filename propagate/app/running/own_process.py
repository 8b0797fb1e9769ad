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
    """Call `work` in a new process, and return its result or raise its PropagateError.

    `work` gets a function to call after each frame, which calls `on_frame` here. Work and result are picklable.
    """
    with children() as start:
        child = start(_work, work)
        try:
            while (message := child.connection.recv()) is None:
                on_frame()
        except (EOFError, OSError) as error:
            ending = child.ending()
            if ending.startswith("killed"):
                raise OutOfMemoryError(
                    f"Its process was {ending}.",
                    "The system does that when memory runs out: give a --max-memory, or close other programs.",
                ) from error
            raise PropagateError(f"Its process ended with {ending}.", "Its output stands above.") from error
    result, failure = message
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def _work(connection: Connection, work: Callable[[Callable[[], None]], Any]) -> None:
    with suppress(EOFError, OSError):
        result, failure = None, None
        try:
            result = work(lambda: connection.send(None))
        except PropagateError as error:
            failure = error
        except MemoryError:
            failure = OutOfMemoryError("Memory ran out.", "Lower video.short_side with --set.")
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            failure = PropagateError(f"Something unexpected happened: {type(error).__name__}: {error}", trace)
        connection.send((result, failure))
        with suppress(EOFError):
            connection.recv()  # the parent ends it
