from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import propagate
from propagate.app.options import Reader
from propagate.settings import VideoSettings

ROOT = Path(propagate.__file__).parent.parent
HELP = """
import sys
from propagate.app import main
sys.argv = ["propagate", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
names = {{"torch", "diffusers", "huggingface_hub", "av", "cv2", "numpy", "scipy", "propagate.settings"}}
heavy = sorted(names & set(sys.modules))
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["track", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(arguments=arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "propagate" in done.stdout


@pytest.mark.parametrize("start", [["-m", "propagate"], [str(ROOT / "cli.py")]])
def test_every_way_to_start_is_the_same_program(start):
    done = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"propagate {propagate.__version__}\n"


def test_help_names_every_command_and_gives_examples(run):
    result = run("--help")
    assert result.exit_code == 0
    for word in ("segment", "track", "demo", "config", "doctor", "Examples"):
        assert word in result.output


def test_options_are_grouped(run):
    output = run("segment", "--help").output
    groups = ["Frames", "Settings", "Output", "Messages"]
    assert [group for group in groups if f" {group} " in output] == groups


def test_no_command_shows_the_help(run):
    assert "segment" in run().output


@pytest.mark.parametrize("arguments", [["segmnt"], ["segment"], ["track", "clip.mp4"], ["config", "shw"]])
def test_wrong_usage_exits_with_2(run, arguments):
    assert run(*arguments).exit_code == 2


def test_the_readers_of_the_command_line_are_those_of_the_settings():
    assert get_args(Reader) == get_args(VideoSettings.model_fields["reader"].annotation)
