from __future__ import annotations

import pytest
from pydantic import ValidationError

from propagate.errors import UsageError
from propagate.settings import Settings, load_settings, nearest, preset_names, preset_summary


def test_every_shipped_preset_loads_and_says_what_it_is():
    assert {"compact", "rgb"} <= set(preset_names())
    for name in preset_names():
        assert load_settings(name).settings.features.name
        assert preset_summary(name).endswith(".")


def test_origins_tell_where_each_value_came_from():
    resolved = load_settings("rgb", ["propagation.top_k=10", "features.device=cpu"])
    assert resolved.settings.propagation.top_k == 10
    assert resolved.origins["propagation.top_k"] == "--set"
    assert resolved.origins["features.device"] == "--set"
    assert resolved.origins["features.name"] == "preset rgb"
    assert resolved.origins["propagation.radius"] == "default"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("video.short_side=null", "video", "short_side", None),
        ("propagation.temperature=0.2", "propagation", "temperature", 0.2),
        ("output.overlay=false", "output", "overlay", False),
        ("propagation.window=none", "propagation", "window", "none"),
    ],
)
def test_overrides_are_read_as_yaml(override, section, key, value):
    settings = load_settings("compact", [override]).settings
    assert getattr(getattr(settings, section), key) == value


def test_nested_override():
    assert load_settings("compact", ["labels.masks.encode=area"]).settings.labels.masks.encode == "area"


def test_a_preset_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("propagation: {n_last: 20}\n", encoding="utf-8")
    resolved = load_settings(path)
    assert resolved.settings.propagation.n_last == 20
    assert resolved.origins["propagation.n_last"] == "preset mine"


def test_an_empty_preset_file_is_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n", encoding="utf-8")
    assert load_settings(path).settings == Settings()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("propagation.topk=3", "unknown key propagation.topk. Did you mean top_k?"),
        ("propagatoin.top_k=3", "unknown key propagatoin. Did you mean propagation?"),
        ("labels.masks.encod=area", "unknown key labels.masks.encod. Did you mean encode?"),
        ("propagation.top_k=0", "propagation.top_k = 0: Input should be greater than or equal to 1"),
        ("propagation.temperature=warm", "propagation.temperature = 'warm'"),
        ("video.reader=vlc", "video.reader = 'vlc'"),
        ("propagation.top_k", "is not of the form section.key=value"),
        ("propagation.top_k=[1", "not valid YAML"),
        ("propagation.top_k.x=1", "propagation.top_k = {'x': 1}"),
        ("propagation=3", "propagation = 3"),
    ],
)
def test_a_wrong_override_is_explained(override, words):
    with pytest.raises(UsageError) as error:
        load_settings("compact", [override])
    assert words in str(error.value)
    assert error.value.exit_code == 2


def test_a_value_used_as_a_section_is_explained(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("propagation: {top_k: 3}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="top_k is a value, not a section"):
        load_settings(path, ["propagation.top_k.deep=1"])


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("compct", "there is no such preset. Did you mean compact?"),
        ("nowhere.yaml", "nowhere.yaml: there is no such file"),
    ],
)
def test_an_unknown_preset_is_explained(preset, words):
    with pytest.raises(UsageError) as error:
        load_settings(preset)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "just text"])
def test_a_preset_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken\.yaml"):
        load_settings(path)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().propagation.top_k = 3  # type: ignore[misc]


def test_nearest_lists_all_when_nothing_is_near():
    assert nearest("zzz", ["compact", "rgb"]) == "Known: compact, rgb."
