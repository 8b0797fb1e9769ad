"""Everything that is printed: results to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.measure import Measurement
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from propagate.app.terminal.interrupt import exit_code, stopping
from propagate.errors import InputError, OutOfMemoryError, PropagateError, PropagateWarning
from propagate.printable import printable

QUIET, NORMAL, VERBOSE, TRACEBACKS = -1, 0, 1, 2
_WIDTH_OF_A_FILE = 1000  # tables that go to a file or a pipe are not folded


class Terminal:
    """Where a command prints to.

    Attributes:
        verbosity: QUIET, NORMAL, VERBOSE or TRACEBACKS.
        out, err: stdout and stderr. A path with brackets is no markup, and what a terminal would obey is escaped.
        signal: the first signal that asked for a stop; None where none did.
        signal_times: when each came.
    """

    def __init__(self, verbosity: int = NORMAL) -> None:
        self.verbosity = verbosity
        self.signal: int | None = None
        self.signal_times: list[float] = []
        self.out, self.err = _console(stderr=False), _console(stderr=True)
        self._status: Status | None = None

    def result(self, text: RenderableType = "") -> None:
        """What the user asked for; nothing with -q."""
        if self.verbosity >= NORMAL:
            # a path that is broken over two lines cannot be copied
            self.out.print(text, soft_wrap=isinstance(text, str | Text))

    def heading(self, text: str) -> None:
        """What comes next, where a command does several things."""
        self.result(Text(text, "bold"))

    def answer(self, text: RenderableType) -> None:
        """What the command was called for: printed with -q too.

        Raises:
            InputError: it cannot be written, the disk being full, say; a reader that has closed its end is no error.
        """
        self.out.print(text, soft_wrap=isinstance(text, str | Text))
        if failure := getattr(sys.stdout, "failure", None):
            raise InputError(f"The answer cannot be written: {failure.strerror}.", "Send it somewhere else.")

    def note(self, text: str) -> None:
        """Something to know about the input or the result; nothing with -q."""
        if self.verbosity >= NORMAL:
            self._labelled("note", "yellow", text)

    def detail(self, text: str) -> None:
        """What only -v shows."""
        if self.verbosity >= VERBOSE:
            self._line(Text(text, "dim"))

    def notes(self, sentences: Iterable[str]) -> None:
        """Notes of the video, the mask or the keypoints."""
        for sentence in sentences:
            self.note(sentence)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show what is being waited for, on a terminal only, and only while it lasts."""
        if self.verbosity >= NORMAL and self.err.is_terminal:
            with self.err.status(Text(text, "dim")) as self._status:
                try:
                    yield
                finally:
                    self._status = None
        else:
            yield

    def ask(self, question: str) -> bool:
        """Whether the user says yes; what is shown while something is waited for gives way."""
        status = self._status
        if status is not None:
            status.stop()
        try:
            return typer.confirm(question, err=True)
        finally:
            if status is not None:
                status.start()

    def error(self, message: str, remedy: str = "") -> None:
        """A failure: one message with cause and remedy."""
        self._labelled("error", "bold red", message)
        if remedy:
            self._line(Text(f"       {remedy}"))

    def stopped(self, text: str) -> None:
        """A run that was interrupted."""
        self._labelled("stopped", "bold yellow", text)

    def _labelled(self, label: str, style: str, text: str) -> None:
        self._line(Text.assemble((f"{label}: ", style), text))

    def _line(self, text: Text) -> None:
        self.err.print(text, soft_wrap=not self.err.is_terminal)


def _console(*, stderr: bool) -> Console:
    console = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    console.push_render_hook(_Escaping())
    return console


class _Escaping(RenderHook):
    """Escapes control characters and what cannot be encoded in everything that is printed: names are foreign text."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(renderable) for renderable in renderables]


class _Escaped:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(_escaped(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._renderable)


def _escaped(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


@contextmanager
def reporting(*, quiet: bool = False, verbose: int = 0) -> Iterator[Terminal]:
    """A command's frame: gives its terminal, and turns whatever is raised inside into a message and an exit code.

    Our own warnings, such as a video that ends early, are notes; other packages' are details.
    """
    terminal = Terminal(QUIET if quiet else min(verbose, TRACEBACKS))
    try:
        _check_working_directory()
        with stopping(terminal), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default", PropagateWarning)
            try:
                with _asking(terminal):
                    yield terminal
            finally:
                for warning in caught:
                    if issubclass(warning.category, PropagateWarning):
                        terminal.note(str(warning.message))
                    else:
                        terminal.detail(f"{warning.category.__name__}: {warning.message}")
        if failure := getattr(sys.stdout, "failure", None):
            terminal.note(f"What was printed to stdout is lost: {failure.strerror}.")
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
        if terminal.signal is not None:  # a library turned the interruption into an error of its own
            terminal.stopped("Interrupted.")
            raise _exit(terminal, exit_code(terminal)) from error
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # wherever a path is first looked at
            terminal.error(f"The path {str(error.filename)[:60]}... is too long for the file system.", "Shorten it.")
            raise _exit(terminal, InputError.exit_code) from error
        terminal.error(
            f"Something unexpected happened: {type(error).__name__}: {error}",
            "" if terminal.verbosity >= TRACEBACKS else "Run it again with -vv to see where.",
        )
        raise _exit(terminal, PropagateError.exit_code) from error


def _check_working_directory() -> None:
    """Refuse a working directory that was removed: libraries end the process without a word when they ask for it."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise InputError("The working directory no longer exists.", "Change to another one.") from error


@contextmanager
def _asking(terminal: Terminal) -> Iterator[None]:
    """Ask before a download, where somebody is there to answer."""
    if not (sys.stdin is not None and sys.stdin.isatty() and terminal.err.is_terminal):
        yield
        return
    from propagate.weights.locating import asking

    with asking(terminal.ask):
        yield


def _exit(terminal: Terminal, code: int) -> typer.Exit:
    """The exit with this code, after the traceback where -vv asks for it."""
    if terminal.verbosity >= TRACEBACKS:
        terminal.err.print(Text(traceback.format_exc().rstrip(), "dim"), soft_wrap=True)
    return typer.Exit(code)
