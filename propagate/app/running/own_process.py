"""Work in a fresh process, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from propagate.benchmarks.running.workers import end, end_with_parent, start
from propagate.errors import OutOfMemoryError, PropagateError
from propagate.weights.consent import forbid

ResultT = TypeVar("ResultT")


def in_own_process(work: Callable[[Callable[[], None]], ResultT], on_frame: Callable[[], None]) -> ResultT:
    """Do some work in a process of its own, and give what it gives.

    The process is spawned: a fork of one that has started threads, torch's or CUDA's, may hang. It hears neither Ctrl-C
    nor SIGTERM, which go to all processes of a terminal or a job; it is ended when this function is left.

    Args:
        work: gets a function that it calls after each frame; can be pickled, and so can its result.
        on_frame: is called here, for each of those calls.

    Raises:
        PropagateError: the work's own; or the process died, or failed in a way nobody thought of.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, work), daemon=True)
    start(process)
    theirs.close()  # so that the line ends when the process does
    try:
        while (message := ours.recv()) is None:
            on_frame()
    except (EOFError, OSError) as error:
        process.join()
        raise _death(process.exitcode) from error
    finally:
        end(process)
        ours.close()
    outcome, value = message
    if outcome == "raised":
        raise value
    result: ResultT = value
    return result


def _work(connection: Connection, work: Callable[[Callable[[], None]], Any]) -> None:
    """The life of the process. It ends with the line, also where the parent was killed."""
    end_with_parent()
    forbid()  # the parent has fetched the weights
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


def _death(exit_code: int | None) -> PropagateError:
    """The error for a process that has said nothing before it ended."""
    if exit_code is not None and exit_code < 0:
        return OutOfMemoryError(
            f"Its process was killed by {signal.Signals(-exit_code).name}.",
            "The system does that where memory runs out: give a --max-memory, or close other programs.",
        )
    return PropagateError(f"Its process ended with exit code {exit_code}.", "What it said stands above.")
