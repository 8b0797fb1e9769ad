"""`--max-memory` holds: the peak of the real command, as the system counts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from propagate.errors import OutOfMemoryError
from tests.app.conftest import SMALL

MIB = 2**20
# in a process of its own, so that the peak of its children is that of one command
MEASURE = """
import json, resource, subprocess, sys
run = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([run.returncode, peak, run.stderr]))
"""


def measured(clip: Path, mask: Path, output: Path, limit: int) -> tuple[int, int, str]:
    """Exit code, peak resident bytes and stderr of `segment` under a limit of MiB."""
    command = [sys.executable, "-m", "propagate", "segment", clip, "--mask", mask, "-o", output, *SMALL]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, command), "--max-memory", f"{limit}MiB"],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    code, peak, said = json.loads(run.stdout)
    return code, peak, said


def test_a_limit_is_refused_with_one_that_holds(clip, mask, tmp_path):
    code, _, said = measured(clip, mask, tmp_path / "refused", 100)
    assert code == OutOfMemoryError.exit_code
    assert not (tmp_path / "refused").exists()
    named = re.search(r"Raise it to (\d+) MiB", said)
    assert named is not None
    least = int(named[1])
    code, peak, said = measured(clip, mask, tmp_path / "held", least)
    assert code == 0, said
    assert peak <= least * MIB
    assert len(list((tmp_path / "held" / "masks").iterdir())) == 8


@pytest.mark.slow
@pytest.mark.parametrize("more", [50, 400])
def test_wider_limits_hold(clip, mask, tmp_path, more):
    _, _, said = measured(clip, mask, tmp_path / "refused", 100)
    named = re.search(r"about (\d+) MiB", said)
    assert named is not None
    limit = int(named[1]) + more
    code, peak, said = measured(clip, mask, tmp_path / "held", limit)
    assert code == 0, said
    assert peak <= limit * MIB
