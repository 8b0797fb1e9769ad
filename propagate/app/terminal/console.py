"""Everything a command prints: results to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.measure import Measurement
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from propagate.app.terminal.interrupt import exit_code, interruptible
from propagate.errors import InputError, OutOfMemoryError, PropagateError, PropagateWarning
from propagate.printable import printable

QUIET, NORMAL, VERBOSE, TRACEBACKS = -1, 0, 1, 2
_FILE_WIDTH = 1000  # do not wrap tables in files and pipes


class Terminal:
    """The output of a command, with the signals that it got."""

    def __init__(self, verbosity: int = NORMAL) -> None:
        self.verbosity = verbosity
        self.signal: int | None = None  # the first one
        self.signal_times: list[float] = []
        self.out, self.err = _console(stderr=False), _console(stderr=True)
        self._status: Status | None = None

    def result(self, text: RenderableType = "") -> None:
        """Print a result, unless -q."""
        if self.verbosity >= NORMAL:
            # a path broken over two lines cannot be copied
            self.out.print(text, soft_wrap=isinstance(text, str | Text))

    def heading(self, text: str) -> None:
        """Print a heading, unless -q."""
        self.result(Text(text, "bold"))

    def answer(self, text: RenderableType) -> None:
        """Print the command's only result, even with -q; raise an InputError on a full disk."""
        self.out.print(text, soft_wrap=isinstance(text, str | Text))
        if failure := getattr(sys.stdout, "failure", None):
            raise InputError(f"The answer cannot be written: {failure.strerror}.", "Send it somewhere else.")

    def note(self, text: str) -> None:
        """Print a note on the input or the result, unless -q."""
        if self.verbosity >= NORMAL:
            self._labelled("note", "yellow", text)

    def notes(self, sentences: Iterable[str]) -> None:
        """Print several notes."""
        for sentence in sentences:
            self.note(sentence)

    def detail(self, text: str) -> None:
        """Print a line with -v only."""
        if self.verbosity >= VERBOSE:
            self._line(Text(text, "dim"))

    def caught(self, records: Sequence[warnings.WarningMessage]) -> None:
        """Print our own warnings as notes, and those of other packages as details."""
        self.notes(own_warnings(records))
        for warning in records:
            if not issubclass(warning.category, PropagateWarning):
                self.detail(f"{warning.category.__name__}: {warning.message}")

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show a spinner during the block, on a terminal."""
        if self.verbosity >= NORMAL and self.err.is_terminal:
            with self.err.status(Text(text, "dim")) as self._status:
                try:
                    yield
                finally:
                    self._status = None
        else:
            yield

    def ask(self, question: str) -> bool:
        """Ask a yes/no question; hide the spinner meanwhile."""
        status = self._status
        if status is not None:
            status.stop()
        try:
            return typer.confirm(question, err=True)
        finally:
            if status is not None:
                status.start()

    def error(self, message: str, remedy: str = "") -> None:
        """Print an error and its remedy."""
        self._labelled("error", "bold red", message)
        if remedy:
            self._line(Text(f"       {remedy}"))

    def stopped(self, text: str) -> None:
        """Print that the run was interrupted."""
        self._labelled("stopped", "bold yellow", text)

    def _labelled(self, label: str, style: str, text: str) -> None:
        self._line(Text.assemble((f"{label}: ", style), text))

    def _line(self, text: Text) -> None:
        self.err.print(text, soft_wrap=not self.err.is_terminal)


def own_warnings(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Return the messages of this package's warnings."""
    return [str(warning.message) for warning in caught if issubclass(warning.category, PropagateWarning)]


def _console(*, stderr: bool) -> Console:
    console = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.push_render_hook(_Escaping())
    return console


class _Escaping(RenderHook):
    """Escape control characters and unencodable text: file names are untrusted."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(renderable) for renderable in renderables]


class _Escaped:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            text = "\n".join(map(printable, segment.text.split("\n")))
            yield segment if segment.control else Segment(text, segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._renderable)


@contextmanager
def reporting(*, quiet: bool = False, verbose: int = 0) -> Iterator[Terminal]:
    """Run a command: give it a terminal, and turn exceptions into messages and exit codes."""
    terminal = Terminal(QUIET if quiet else min(verbose, TRACEBACKS))
    try:
        _check_working_directory()
        with interruptible(terminal), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default", PropagateWarning)
            try:
                with _asking(terminal):
                    yield terminal
            finally:
                terminal.caught(caught)
        if failure := getattr(sys.stdout, "failure", None):
            terminal.note(f"Output to stdout is lost: {failure.strerror}.")
    except PropagateError as error:
        terminal.error(error.message, error.remedy)
        raise _exit(terminal, error.exit_code) from error
    except MemoryError as error:
        terminal.error("Memory ran out.", "Lower video.short_side or propagation.n_last with --set.")
        raise _exit(terminal, OutOfMemoryError.exit_code) from error
    except KeyboardInterrupt as error:
        terminal.stopped(str(error) or "Interrupted.")
        raise typer.Exit(exit_code(terminal)) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if terminal.signal is not None:  # a library turned the interrupt into an error of its own
            terminal.stopped("Interrupted.")
            raise _exit(terminal, exit_code(terminal)) from error
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # raised by the first use of a path
            terminal.error(f"The path {str(error.filename)[:60]}... is too long for the file system.", "Shorten it.")
            raise _exit(terminal, InputError.exit_code) from error
        remedy = "" if terminal.verbosity >= TRACEBACKS else "Run it again with -vv to see where."
        terminal.error(f"Something unexpected happened: {type(error).__name__}: {error}", remedy)
        raise _exit(terminal, PropagateError.exit_code) from error


def _check_working_directory() -> None:
    """Refuse a removed working directory, with which libraries end the process silently."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise InputError("The working directory no longer exists.", "Change to another one.") from error


def _asking(terminal: Terminal) -> AbstractContextManager[None]:
    """Ask before downloads, if a user is there to answer."""
    if not (sys.stdin is not None and sys.stdin.isatty() and terminal.err.is_terminal):
        return nullcontext()
    from propagate.weights.consent import asking

    return asking(terminal.ask)


def _exit(terminal: Terminal, code: int) -> typer.Exit:
    """Return the exit; print the traceback with -vv."""
    if terminal.verbosity >= TRACEBACKS:
        terminal.err.print(Text(traceback.format_exc().rstrip(), "dim"), soft_wrap=True)
    return typer.Exit(code)
