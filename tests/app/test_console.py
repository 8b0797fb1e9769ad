"""What a command says without being asked."""

from __future__ import annotations

import warnings

import pytest

from propagate.app.terminal.console import reporting
from propagate.errors import PropagateWarning


@pytest.mark.filterwarnings("default")
def test_our_own_warnings_are_notes_whatever_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting():
        warnings.warn("the video was not written", PropagateWarning, stacklevel=1)
        warnings.warn("deprecated", UserWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert "note: the video was not written" in said
    assert "deprecated" not in said
