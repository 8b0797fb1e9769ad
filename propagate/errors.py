"""One exception tree. Each class carries the exit code of the command line.

An error is a sentence that names the file or the option and the cause, and a remedy that says what to do. Errors are
raised where they are known and printed in one place, `propagate.app`.
"""

from __future__ import annotations

from propagate.printable import printable

SOME_FAILED = 6  # exit code where some clips or presets failed and the others are done


class PropagateError(Exception):
    """Base of every error this package raises on purpose. Its text can be printed and encoded, whatever names it holds.

    Attributes:
        message: what was wrong, with which file or option.
        remedy: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        message, remedy = printable(message), printable(remedy)
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy


class PropagateWarning(UserWarning):
    """Base of every warning of this package: something about the result that the user has to know."""


class UsageError(PropagateError):
    """A wrong option, preset, setting or argument."""

    exit_code = 2


class InputError(PropagateError):
    """A video, mask or keypoints file that cannot be read or does not fit, or an output that cannot be written."""

    exit_code = 3


class WeightsError(PropagateError):
    """Model weights that are not there, not whole or not what they should be."""

    exit_code = 4


class OutOfMemoryError(PropagateError):
    """The machine or the device has too little memory for the settings."""

    exit_code = 5
