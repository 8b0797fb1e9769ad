"""Extractors of other packages: the one of docs/extending.md, installed as anybody would, and broken ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from propagate.app.program import app
from propagate.errors import UsageError
from propagate.features import FeatureExtractor, build_extractor, extractor_names, extractor_options
from propagate.features.passes import Passes, PassSize
from propagate.formats import read_indexed_png, write_mask
from propagate.types import Mask
from tests.app.conftest import SMALL, square_ids, write_video
from tests.places import CHECKOUT

NAME = "oriented_gradients"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder into which pip has put the package that docs/extending.md writes down, file by file."""
    text = (CHECKOUT / "docs" / "extending.md").read_text(encoding="utf-8")
    written = re.findall(r"^`([\w/.-]+)`\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in written} == {"pyproject.toml", f"{NAME}/__init__.py"}
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name, content in written:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(content, encoding="utf-8")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def python(installed: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own that has the package."""
    path = os.pathsep.join([str(installed), str(CHECKOUT)])
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_documented_package_segments_a_clip(installed, tmp_path):
    clip, mask = write_video(tmp_path / "clip.mp4", frames=3), tmp_path / "first.png"
    write_mask(mask, Mask(square_ids(0)))
    chosen = ["--set", f"features.name={NAME}", "--set", "features.directions=6"]
    small = [argument for argument in SMALL if argument not in ("--config", "rgb")]
    result = python(installed, "propagate", "segment", clip, "-m", mask, *small, *chosen, "-o", "out", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    for index in range(3):
        found, truth = (
            read_indexed_png(tmp_path / "out" / "masks" / f"{index:05d}.png").ids == 1,
            square_ids(index) == 1,
        )
        assert (found & truth).sum() / (found | truth).sum() > 0.6
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    features = record["settings"]["features"]
    assert (features["name"], features["directions"]) == (NAME, 6)
    assert record["extractor_package"] == "oriented-gradients 1.0"


def test_the_documented_package_conforms(installed):
    result = python(
        installed, "pytest", "-q", "-p", "no:cacheprovider", "tests/features/test_conformance.py", "-k", NAME,
        folder=CHECKOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed, 1 skipped", result.stdout)  # it has no precisions to choose from
    assert passed is not None, result.stdout
    assert int(passed[1]) >= 8, result.stdout


def test_doctor_lists_it_with_its_package(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    result = run("doctor", "--set", f"features.name={NAME}", "--device", "cpu")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert f"{NAME} (oriented-gradients 1.0)" in told
    assert f"features {NAME} 81 channels at stride 8" in told


def test_its_options_are_checked_and_shown(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    assert NAME in extractor_names()
    assert extractor_options(NAME) == {"directions": 9, "device": "auto"}
    assert isinstance(build_extractor(NAME, device="cpu"), FeatureExtractor)
    with pytest.raises(UsageError, match=r"features\.directions = 1: Input should be greater than or equal to 2"):
        build_extractor(NAME, directions=1)
    shown = run("config", "show", "--set", f"features.name={NAME}")
    assert re.search(r"features\.directions +9 +default", shown.stdout), shown.output


GOOD = """
class Extractor:
    stride, channels, multiple = 8, 3, 8
    def __init__(self, scale=1.0):
        self.scale = scale
    def __call__(self, images, indices=None):
        return images[:, :, ::8, ::8] * self.scale
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package importable whose module has this content and is registered under this name."""

    def make(content: str, name: str = "outside", *, attribute: str = "Extractor", distribution: str = "other") -> str:
        folder = tmp_path / distribution
        module = f"{distribution}_{tmp_path.name}".replace("-", "_")  # no module of another test has this name
        metadata = folder / f"{distribution}-2.1.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(content)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.1\n")
        (metadata / "entry_points.txt").write_text(f"[propagate.extractors]\n{name} = {module}:{attribute}\n")
        monkeypatch.syspath_prepend(folder)
        return name

    return make


def test_options_without_annotations_are_taken_as_they_are(package):
    images = torch.rand(2, 3, 16, 24)
    extractor = build_extractor(package(GOOD), scale=2.0)
    torch.testing.assert_close(extractor(images), images[:, :, ::8, ::8] * 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import a_library_that_is_not_there", "cannot be imported (ModuleNotFoundError: No module named 'a_library_"),
        ("def broken(:", "cannot be imported (SyntaxError"),
        ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("", "cannot be imported (AttributeError: module "),
        ("Extractor = 7", "is a int, not a class or function"),
        (GOOD.replace("stride, channels, multiple = 8, 3, 8", "stride, channels = 8, 3"), "has no multiple; it has to"),
        (GOOD.replace("8, 3, 8", "0.5, 3, 8"), "has stride = 0.5; it has to be a whole number above 0"),
        (GOOD.replace("8, 3, 8", "8, 0, 8"), "has channels = 0; it has to be a whole number above 0"),
        (GOOD.replace("__call__", "features"), "cannot be called with (images, indices=...), as every extractor is"),
        (GOOD.replace(", indices=None", ""), "got an unexpected keyword argument 'indices'"),
        (GOOD.replace("scale=1.0", "scale"), "features.scale: outside needs it."),
    ],
)
def test_a_broken_package_is_named_with_exit_code_2(package, content, words):
    name = package(content)
    result = run("doctor", "--set", f"features.name={name}", "--device", "cpu")
    assert result.exit_code == 2
    with pytest.raises(UsageError) as error:
        build_extractor(name)
    assert words in error.value.message
    assert f"features.name = {name}: " in error.value.message or "features.scale" in error.value.message
    assert "other 2.1" in str(error.value) or "features.scale" in error.value.message


def test_a_broken_package_that_is_not_chosen_is_reported_and_no_obstacle(package):
    package("import a_library_that_is_not_there")
    result = run("doctor", "--config", "rgb", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "other 2.1" in " ".join(result.stdout.split())
    assert "a_library_that_is_not_there" not in result.stdout  # listed, not imported
    result = run("doctor", "--config", "rgb", "--device", "cpu", "--check-extractors")
    assert result.exit_code == 0, result.output
    assert "a_library_that_is_not_there" in " ".join(result.stdout.split())


@pytest.mark.parametrize("content", [GOOD, "import a_library_that_is_not_there"])
def test_a_name_of_ours_is_not_taken_over(package, content):
    name = package(content, "rgb")
    with pytest.raises(UsageError) as error:
        build_extractor(name)
    assert (
        error.value.message
        == "features.name = rgb: dift-propagate itself and other 2.1 have an extractor of that name."
    )
    assert "other 2.1" in error.value.remedy
    assert run("doctor", "--config", "rgb").exit_code == 2
    assert run("doctor", "--config", "compact", "--device", "cpu").exit_code == 0


def test_a_name_of_two_packages_is_neither(package):
    name = package(GOOD, distribution="one")
    package(GOOD, distribution="two")
    with pytest.raises(UsageError, match=r"(one 2\.1 and two 2\.1|two 2\.1 and one 2\.1) have an extractor"):
        build_extractor(name)


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        ("images[:, :, ::4, ::4]", r"of the shape \(2, 3, 4, 6\) .* it has to be \(2, 3, 2, 3\) of floats"),
        ("images[:, :2, ::8, ::8]", r"of the shape \(2, 2, 2, 3\)"),
        ("images[:1, :, ::8, ::8]", r"of the shape \(1, 3, 2, 3\)"),
        ("images[:, :, ::8, ::8].long()", r"the type torch\.int64"),
        ("images[:, :, ::8, ::8].numpy()", "gives a ndarray"),
    ],
)
def test_features_that_break_the_contract_are_told(package, gives, words):
    name = package(GOOD.replace("images[:, :, ::8, ::8] * self.scale", gives))
    extractor = Passes(build_extractor(name), PassSize(2))
    with pytest.raises(UsageError, match=words) as error:
        extractor(torch.rand(2, 3, 16, 24))
    assert error.value.message.startswith("Extractor gives ")


def test_features_that_break_the_contract_end_a_run_with_exit_code_2(package, tmp_path):
    clip, mask = write_video(tmp_path / "clip.mp4", frames=2), tmp_path / "first.png"
    write_mask(mask, Mask(square_ids(0)))
    name = package(GOOD.replace("::8, ::8", "::4, ::4"))
    out = tmp_path / "out"
    result = run("segment", clip, "-m", mask, "--set", f"features.name={name}", "-o", out)
    assert result.exit_code == 2, result.output
    assert "Extractor gives a tensor of the shape" in " ".join(result.stderr.split())
    assert not out.exists()
