"""stdout and stderr that can be closed or full without an end to the run.

Printing never fails a command: what is written in files decides about the exit code. So a reader that closes its end
(`| head -1`), a full disk (`> /dev/full`) and a stream that is closed from the start (`>&-`) leave complete results and
exit code 0. Where the text itself was the result (`Terminal.answer`), a full disk is an error and a closed reader is
not: it has read what it wanted.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


class Stream:
    """A text stream that swallows what the system says of writing to it, and from then on writes nothing.

    Attributes:
        failure: why text was lost; None where nothing was, or the reader has closed its end.
    """

    def __init__(self, stream: Any) -> None:
        self.failure: OSError | None = None
        self._stream, self._dead = stream, False

    def write(self, text: str) -> int:
        """Write text, or nothing where that is no longer possible."""
        if not self._dead:
            try:
                return int(self._stream.write(text))
            except OSError as error:
                self._give_up(error)
            except RuntimeError:
                pass  # a signal's handler prints while this very stream is being written
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, if that is possible."""
        if not self._dead:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)
            except RuntimeError:
                pass

    def _give_up(self, error: OSError) -> None:
        self._dead = True
        if error.errno not in (errno.EPIPE, errno.EBADF):
            self.failure = error
        # What is still in a buffer, and what libraries print on their own, goes nowhere.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Make the standard streams of this process such streams; text that their encoding lacks is written as escapes."""
    for number in (0, 1, 2):  # a number that is free would be given to the next file, and be printed into
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        with suppress(AttributeError, ValueError, OSError):
            cast("Any", stream).reconfigure(errors="backslashreplace")
        setattr(sys, name, Stream(stream))
