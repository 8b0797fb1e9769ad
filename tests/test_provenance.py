from __future__ import annotations

import pytest

from propagate.errors import UsageError
from propagate.provenance import all_settings, local_weights
from propagate.settings import load_settings, load_with_origins

TWO = "features: [{name: rgb, weight: 0.5}, {name: compact, timestep: 7, pca: 9}]"


@pytest.fixture
def two(tmp_path):
    (tmp_path / "two.yaml").write_text(TWO)
    return tmp_path / "two.yaml"


def test_parts_of_a_fusion_are_told_one_by_one_with_their_defaults(two):
    found = all_settings(load_with_origins(two, ["features.parts.1.seed=4"]))
    expected = {
        "features.name": ("fusion", "preset two"),
        "features.parts.0.name": ("rgb", "preset two"),
        "features.parts.0.weight": (0.5, "preset two"),
        "features.parts.0.pca": (None, "default"),
        "features.parts.0.fit": ("features", "default"),
        "features.parts.1.timestep": (7, "preset two"),
        "features.parts.1.seed": (4, "--set"),
        "features.parts.1.ensemble_size": (1, "default"),
        "features.device": ("auto", "default"),
    }
    assert {key: (found[key].value, found[key].origin) for key in expected} == expected
    assert "features.parts" not in found
    assert "features.parts.1.device" not in found  # is the fusion's
    places = [key.split(".")[2] for key in found if key.startswith("features.parts.")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("features.parts.1.timesteps=3", "features.parts.1.timesteps: compact has no such option. Did you mean"),
        ("features.parts.0.name=rbg", "there is no such extractor. Did you mean rgb?"),
        ("features.seed=3", "features.seed: fusion has no such option"),
    ],
)
def test_what_a_part_does_not_know_is_explained(two, override, words):
    with pytest.raises(UsageError) as error:
        all_settings(load_with_origins(two, [override]))
    assert words in str(error.value)


def test_weights_of_parts_are_told_by_their_content(two, tmp_path):
    assert set(local_weights(load_settings(two).features)) == {"parts.1.weights"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin").write_bytes(b"1")
    override = [f"features.parts.1.weights={tmp_path / 'folder'}"]
    one = local_weights(load_settings(two, override).features)
    (tmp_path / "folder" / "a.bin").write_bytes(b"2")
    other = local_weights(load_settings(two, override).features)
    assert one.keys() == other.keys() == {"parts.1.weights"}
    assert one != other
