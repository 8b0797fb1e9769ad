from __future__ import annotations

import json
from importlib.metadata import PathDistribution

import pytest
import torch

from propagate.errors import WeightsError
from propagate.feature_cache import identity as module
from propagate.feature_cache.identity import Description, extractor_identity, read_description, write_description
from propagate.features import plugins as installed
from propagate.formats import settings_hash
from propagate.settings import load_with_origins

KNOWN = Description(
    stride=8,
    channels=48,
    multiple=8,
    draws_per_pass=4,
    learns=True,
    finer_stride=4,
    finer_channels=12,
    side_by_side=False,
)


def identity(*overrides: str, preset: str = "rgb"):
    return extractor_identity(load_with_origins(preset, list(overrides)), torch.device("cpu"))


def edit(folder, **changes) -> None:
    """Change the description and make its checksum right again, as somebody could."""
    values = json.loads((folder / "extractor.json").read_text())
    values["extractor"] |= changes
    values.pop("checksum")
    values["checksum"] = settings_hash(values)[:16]
    (folder / "extractor.json").write_text(json.dumps(values))


def test_a_description_comes_back(tmp_path):
    write_description(tmp_path, {"device": "cpu"}, KNOWN)
    assert read_description(tmp_path, {"device": "cpu"}) == KNOWN
    assert read_description(tmp_path, {"device": "cuda"}) is None
    assert read_description(tmp_path / "nowhere", {}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"stride": None},
        {"stride": 0},
        {"channels": "48"},
        {"multiple": -8},
        {"finer_channels": 10**12},
        {"finer_stride": 3},
        {"draws_per_pass": True},
        {"learns": 1},
        {"more": 1},
    ],
)
def test_values_out_of_range_are_no_description(tmp_path, change):
    write_description(tmp_path, {}, KNOWN)
    edit(tmp_path, **change)
    assert read_description(tmp_path, {}) is None


def test_the_transfer_the_batch_and_the_name_of_the_device_are_not_identity():
    same = identity("features.batch_size=4", "features.device=auto", "propagation.top_k=3", "video.short_side=99")
    assert same == identity()
    assert identity("features.seed=1", preset="compact") != identity(preset="compact")


def test_every_version_that_computes_counts():
    assert set(identity()["versions"]) >= {"propagate", "torch", "diffusers", "transformers", "numba"}
    assert all(identity()["versions"].values())


def test_the_code_of_sub_folders_counts(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(module, "files", lambda name: tmp_path)
    digests = set()
    for content in ("a = 1", "a = 2"):
        (tmp_path / "inner" / "part.py").write_text(content)
        digests.add(module.own_code.__wrapped__())
    assert len(digests) == 2


@pytest.mark.parametrize("where", ["option", "part", "part of a part"])
def test_weights_count_to_the_last_byte_wherever_they_are_named(tmp_path, monkeypatch, where):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w").mkdir()
    inner = {"name": "compact", "weights": "~/w"}
    features = {
        "option": inner,
        "part": {"name": "fusion", "parts": [{"name": "rgb"}, inner]},
        "part of a part": {"name": "fusion", "parts": [{"name": "fusion", "parts": [inner]}]},
    }[where]
    (tmp_path / "preset.yaml").write_text(json.dumps({"features": features}))
    content = bytearray(10_000_000)
    found = []
    for place in (0, 9_000_001):
        content[place] = 7
        (tmp_path / "w" / "model.safetensors").write_bytes(content)
        found.append(identity(preset=str(tmp_path / "preset.yaml"))["weights"])
    assert found[0] != found[1]
    assert len(found[0]) == 1


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A package with an extractor, installed editable: its sources are not among the installed files."""
    info, source = tmp_path / "foreign-1.dist-info", tmp_path / "src" / "foreign_extractor_package"
    (source / "inner").mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Name: foreign\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[propagate.extractors]\nforeign = foreign_extractor_package.inner:Build\n")
    (info / "RECORD").write_text("foreign-1.dist-info/METADATA,,\n")
    (source / "__init__.py").write_text("raise ZeroDivisionError")  # nothing may be imported
    (source / "inner" / "__init__.py").write_text("a = 1")
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    entries = list(PathDistribution(info).entry_points)
    monkeypatch.setattr(installed, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    return source


def test_files_of_a_foreign_package_count_not_only_its_version(foreign):
    one = installed.package_digest("foreign")
    assert one.startswith("foreign 1: ")
    assert installed.package_digest("foreign") == one
    (foreign / "inner" / "__init__.py").write_text("a = 2")
    assert installed.package_digest("foreign") != one
    assert installed.package_digest("rgb") == ""


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"a")

    def unreadable(*_arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("propagate.features.networks.local_files.hashlib.file_digest", unreadable)
    with pytest.raises(WeightsError, match="Input/output error"):
        identity(f"features.weights={tmp_path}", preset="compact")
