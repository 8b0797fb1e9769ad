from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import propagate
from propagate.app.running.record import settings_record
from propagate.settings import load_with_origins


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("features: [{name: rgb}, {name: compact, timestep: 7}]")
    return path


def test_the_parts_of_a_fusion_are_a_list_that_is_a_preset_again(preset, tmp_path):
    record = settings_record(load_with_origins(preset))
    parts = record["settings"]["features"]["parts"]
    assert [part["name"] for part in parts] == ["rgb", "compact"]
    assert parts[1]["timestep"] == 7
    assert parts[1]["seed"] == 0
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(record["settings"]))
    assert settings_record(load_with_origins(again))["settings"] == record["settings"]


def test_a_part_changes_the_hash(preset):
    plain = settings_record(load_with_origins(preset))["settings_hash"]
    assert settings_record(load_with_origins(preset, ["features.parts.1.timestep=51"]))["settings_hash"] != plain
    assert settings_record(load_with_origins(preset, ["features.parts.0.weight=1.0"]))["settings_hash"] == plain


def test_the_content_of_weights_is_told(tmp_path):
    weights = tmp_path / "compact"
    shutil.copytree(Path(propagate.__file__).parent / "models" / "compact", weights)
    named = load_with_origins("compact", [f"features.weights={weights}"])
    before = settings_record(named)
    (weights / "config.json").write_bytes((weights / "config.json").read_bytes() + b" ")
    after = settings_record(named)
    assert before["settings_hash"] == after["settings_hash"]
    assert before["weights"].keys() == {"weights"}
    assert before["weights"] != after["weights"]
    assert settings_record(load_with_origins("rgb"))["weights"] == {}


def test_recording_the_threads_changes_no_number_of_threads():
    code = (
        "import torch; torch.set_num_threads(3); from propagate.app.running.record import threads; "
        "print(threads(), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'torch': 3, 'transfer': 3} 3\n"
