"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import CHECKOUT

RECIPES = dict(
    re.findall(
        r"^## (Add [^\n]*)\n(.*?)(?=^## |\Z)",
        (CHECKOUT / "CONTRIBUTING.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
)
STEP = re.compile(
    r"^(?:Create `(?P<new>[^`]+)`|In `(?P<old>[^`]+)`, (?P<how>after|in place of) `(?P<place>[^`]+)`)[^\n]*\n\n"
    r"```python\n(?P<code>.*?)```\n",
    re.DOTALL | re.MULTILINE,
)
TRY = re.compile(r"^Try it:\n\n```sh\n(.*?)```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("propagate", "tests", "configs"):
        left = shutil.ignore_patterns("__pycache__", "fuzz", "kills")
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=left)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def test_there_is_a_recipe_for_each():
    assert [*RECIPES] == ["Add a backbone", "Add a keypoint format", "Add a data set", "Add a command"]


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works(checkout: Path, title: str) -> None:
    steps = list(STEP.finditer(RECIPES[title]))
    assert len(steps) == len(re.findall(r"```python", RECIPES[title])) > 1
    for step in steps:
        path = checkout / (step["new"] or step["old"])
        if step["new"]:
            assert not path.exists()
            path.parent.mkdir(exist_ok=True)
            path.write_text(step["code"], "utf-8")
        else:
            text = path.read_text("utf-8")
            assert text.count(step["place"]) == 1, step["place"]
            after = step["place"] + "\n" if step["how"] == "after" else ""
            code = step["code"] if step["how"] == "after" else step["code"].rstrip("\n")
            path.write_text(text.replace(step["place"] + ("\n" if after else ""), after + code), "utf-8")
    (commands,) = TRY.findall(RECIPES[title])
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for command in commands.splitlines():
        done = subprocess.run(command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
