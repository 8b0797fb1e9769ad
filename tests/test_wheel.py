"""What `pip install .` gives: a wheel that works away from the checkout, with presets and the compact model in it."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.places import CHECKOUT

OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The console script of a fresh environment that has the wheel, and sees our dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    target = ["--target", str(packages), "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *target], check=True, capture_output=True)
    # a path in a .pth file is searched, but the .pth files in it (the editable install's) are not read
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-P", "-m", "propagate", *arguments]
    return subprocess.run(command, cwd=folder, env=OUTSIDE, capture_output=True, text=True, check=False)


def test_the_wheel_holds_presets_and_model_and_nothing_of_the_checkout(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "propagate/configs/compact.yaml" in names
    assert "propagate/models/compact/model.safetensors" in names
    assert "propagate/benchmarks/report/report.html.j2" in names
    assert "propagate/models/compact/README.md" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"propagate"}


def test_the_package_comes_from_the_environment(installed, tmp_path):
    found = subprocess.run(
        [str(installed), "-P", "-c", "import propagate; print(propagate.__file__)"],
        cwd=tmp_path,
        env=OUTSIDE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(installed.parent.parent))


def test_the_demo_runs_in_another_folder(installed, tmp_path):
    samples = [
        "--samples",
        str(CHECKOUT / "sample_videos"),
        "--set",
        "video.to_frame=3",
        "--set",
        "video.short_side=96",
    ]
    result = run(installed, "demo", *samples, "--output", "shown", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("shown/**/overlay.mp4"))) >= 3
    assert len(list(tmp_path.glob("shown/**/00002.png"))) >= 2


def test_presets_are_found_in_another_folder(installed, tmp_path):
    result = run(installed, "config", "list", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "compact" in result.stdout
