"""The fuzzer finds planted faults, and nothing in a fixed handful of cases of each kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import main
from tests.places import CHECKOUT

# a command that fails in the way that its first argument says
PLANTED = """
import os, sys, time
from pathlib import Path
from tests.fuzz import command
from tests.fuzz.__main__ import main
from tests.fuzz.kinds import KINDS
from tests.fuzz.variant import Kind, Variant

class Planted:
    def main(self, arguments, prog_name):
        fault = arguments[0]
        if fault == "exception":
            raise KeyError("planted")
        if fault == "code":
            sys.exit(1)
        if fault == "clip":
            print("Traceback (most recent call last):\\n  File x, line 1, in y\\nValueError: planted", file=sys.stderr)
            sys.exit(6)
        if fault == "hang":
            time.sleep(60)
        if fault == "crash":
            os.abort()
        if fault == "memory":
            bytearray(2**36)
        if fault == "outside":
            Path("../canary.txt").unlink()
        if fault == "leftover":
            Path("out").mkdir()
            Path("out/.x.0123.png").touch()
        sys.exit(3 if fault == "refused" else 0)

def make(root):
    for fault in ("none", "refused", *sys.argv[1:]):
        folder = root / fault
        folder.mkdir()
        (folder / "x.png").write_bytes(b"x")
        yield Variant(fault, folder, ("x.png",), (fault,))

KINDS["planted"] = Kind(make)
command._command = Planted
sys.exit(main(["--kind", "planted", "-n", "0", "--seconds", "2", "--findings", "findings"]))
"""


def closing_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout.splitlines()[-1] if result.stdout else result.stderr


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # a process of its own: it forks, and the shape checks of the tests would make it slow
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PATH": "", "PYTHONPATH": str(CHECKOUT), "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_planted_faults_are_found_and_saved(tmp_path):
    faults = ("exception", "code", "clip", "hang", "crash", "memory", "outside", "leftover")
    result = python("-c", PLANTED, *faults, cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    for count in ("1 ok", "1 valid input refused", "3 foreign exception", "1 hang", "1 crash", "1 memory", "1 outside"):
        assert count in closing_line(result)
    assert "1 leftover" in closing_line(result)
    saved = {path.name for path in (tmp_path / "findings").iterdir()}
    assert len(saved) == len(faults) + 1
    assert any("planted" in (tmp_path / "findings" / name).read_text() for name in saved)


def test_a_fixed_handful_of_every_kind_is_clean(tmp_path):
    result = python("-m", "tests.fuzz", "--each", "30", "--seed", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [("--kind", "nonsense"), ("--case", "nonsense:1"), ("--case", "mask:first")])
def test_an_unknown_kind_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "mask" in capsys.readouterr().err
