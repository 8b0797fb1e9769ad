"""stdout and stderr that may be closed or full without ending the run.

Printing never fails a command: the written files decide about the exit code. A closed pipe (`| head -1`), a full disk
(`> /dev/full`) and a closed stream (`>&-`) leave complete results and exit code 0. If the text itself was the result
(`Terminal.answer`), a full disk is an error and a closed pipe is not: the reader has what it wanted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast


class Stream:
    """A text stream that writes nothing after the first OSError."""

    def __init__(self, stream: Any) -> None:
        self.failure: OSError | None = None  # why text was lost, unless the reader closed the pipe
        self._stream, self._is_closed = stream, False

    def write(self, text: str) -> int:
        """Write text, if possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the buffer, if possible."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], Any]) -> None:
        if self._is_closed:
            return
        # RuntimeError: a signal handler prints while this very stream is being written
        try:
            with suppress(RuntimeError):
                act()
        except OSError as error:
            self._is_closed = True
            if error.errno not in (errno.EPIPE, errno.EBADF):
                self.failure = error
            # discard the buffer and what libraries print on their own
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Replace the standard streams of this process; unencodable text is escaped."""
    for number in (0, 1, 2):  # the next opened file would get a free number, and be printed into
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
