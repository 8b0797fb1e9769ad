from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from propagate.app.models import app as models_app
from propagate.weights.registry import MODELS, Model, UrlSource, WeightFile
from tests.features.adm.guided_diffusion import Options, random_state

CONTENT = b"weights"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own with the file of a model `tiny`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("propagate.weights.download.PAUSE_S", 0)
    file = WeightFile("tiny.pt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    model = Model("a tiny one", "CC0", (UrlSource("http://127.0.0.1:1/tiny.pt", file),))
    monkeypatch.setitem(MODELS, "tiny", model)
    path = tmp_path / "cache" / "dift-propagate" / "tiny.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


def run(*arguments: str):
    return CliRunner().invoke(models_app, list(arguments), env={"COLUMNS": "200"})


def test_list_shows_licences_and_what_is_here():
    result = run("list")
    assert result.exit_code == 0
    assert set(MODELS) <= set(result.stdout.split())
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.split()}
    assert re.fullmatch(rf"tiny +here +{len(CONTENT)} bytes +CC0 +a tiny one", rows["tiny"].rstrip())
    assert re.match(r"adm-256 +not here +[0-9.]+ GB +MIT", rows["adm-256"])


def test_path_prints_the_path_alone(cache):
    result = run("path", "tiny", "-q")
    assert (result.exit_code, result.stdout.strip()) == (0, str(cache))


def test_path_of_a_model_that_is_not_here(cache):
    cache.unlink()
    result = run("path", "tiny")
    assert result.exit_code == 4
    assert "not in the cache" in result.stderr
    assert "compact" in result.stderr


def test_download_of_what_is_here_prints_where_and_the_licence(cache):
    result = run("download", "tiny")
    assert (result.exit_code, result.stdout.strip()) == (0, str(cache))
    assert "CC0" in result.stderr


def test_a_quiet_download_prints_the_path_alone(cache):
    result = run("download", "tiny", "-q")
    assert (result.exit_code, result.stdout.strip(), result.stderr) == (0, str(cache), "")


@pytest.mark.parametrize("arguments", [("download", "tiny", "--offline"), ("download", "tiny")])
def test_download_without_a_network(cache, arguments):
    cache.unlink()
    result = run(*arguments)
    assert result.exit_code == 4
    assert "offline" in result.stderr


@pytest.mark.parametrize("command", ["download", "verify", "path"])
def test_an_unknown_model_is_a_usage_error(command):
    result = run(command, "sd3")
    assert result.exit_code == 2
    assert "adm-256" in result.stderr


def test_verify(cache):
    assert run("verify", "tiny").exit_code == 0
    cache.write_bytes(CONTENT[::-1])
    result = run("verify", "tiny")
    assert result.exit_code == 4
    assert "SHA-256" in result.stderr


def test_verify_of_a_file_elsewhere(cache, tmp_path):
    (tmp_path / "copy.pt").write_bytes(CONTENT)
    result = run("verify", "tiny", str(tmp_path / "copy.pt"))
    assert (result.exit_code, result.stdout.strip()) == (0, f"{tmp_path / 'copy.pt'}: ok")


def test_convert_adm(tmp_path):
    torch.save(random_state(Options()), tmp_path / "in.pt")
    result = run("convert-adm", str(tmp_path / "in.pt"), str(tmp_path / "out"), "--head-channels", "16")
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }


@pytest.mark.parametrize(
    ("prepare", "arguments", "code", "message"),
    [
        (lambda folder: None, (), 4, r"in\.pt"),
        (
            lambda folder: torch.save(random_state(Options()), folder / "in.pt"),
            ("--head-channels", "48"),
            2,
            "head_channels = 48",
        ),
        (lambda folder: (folder / "in.pt").write_bytes(b"nothing"), (), 4, r"in\.pt"),
    ],
    ids=["missing", "heads", "damaged"],
)
def test_convert_adm_that_fails_leaves_nothing(tmp_path, prepare, arguments, code, message):
    prepare(tmp_path)
    result = run("convert-adm", str(tmp_path / "in.pt"), str(tmp_path / "out"), *arguments)
    assert result.exit_code == code
    assert re.search(message, result.stderr)
    assert not (tmp_path / "out").exists()


def test_a_script_has_to_say_yes(cache, monkeypatch):
    cache.unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("PROPAGATE_DOWNLOADS", "")
    result = run("download", "tiny")
    assert result.exit_code == 4
    assert "licence CC0" in result.stderr
    assert "propagate models download tiny --yes" in result.stderr
    result = run("download", "tiny", "--yes")  # the address answers nothing
    assert result.exit_code == 4
    assert "could not be found" in result.stderr
