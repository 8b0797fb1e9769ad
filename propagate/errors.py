"""One exception tree. Each class carries an exit code; `propagate.app` prints errors."""

from __future__ import annotations

from propagate.printable import printable

SOME_FAILED = 6  # exit code when some clips or presets failed and the others succeeded


class PropagateError(Exception):
    """Base of all errors: `message` names the cause, with the file or option, and `remedy` what to do. Printable."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        message, remedy = printable(message), printable(remedy)
        super().__init__(f"{message} {remedy}".strip())
        self.message, self.remedy = message, remedy


class PropagateWarning(UserWarning):
    """Base of all warnings of this package about the result."""


class UsageError(PropagateError):
    """A wrong option, preset, setting or argument."""

    exit_code = 2


class InputError(PropagateError):
    """An input file that cannot be read or does not fit, or an output that cannot be written."""

    exit_code = 3


class WeightsError(PropagateError):
    """Model weights that are missing, damaged or wrong."""

    exit_code = 4


class OutOfMemoryError(PropagateError):
    """The machine or the device has too little memory for the settings."""

    exit_code = 5
