from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from propagate.errors import UsageError
from propagate.formats import settings_hash
from propagate.provenance import all_settings
from propagate.settings import (
    FeatureSettings,
    Settings,
    load_settings,
    load_with_origins,
    nearest,
    preset_names,
    preset_summary,
)


def test_every_shipped_preset_loads_and_says_what_it_is():
    assert {"compact", "rgb"} <= set(preset_names())
    for name in preset_names():
        assert load_settings(name).features.name
        assert preset_summary(name).endswith(".")


def test_origins_tell_where_each_value_came_from():
    resolved = load_with_origins("rgb", ["propagation.top_k=10", "features.device=cpu"])
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
    settings = load_settings("compact", [override])
    assert getattr(getattr(settings, section), key) == value


def test_nested_override():
    assert load_settings("compact", ["labels.masks.encode=area"]).labels.masks.encode == "area"


def test_a_preset_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("propagation: {n_last: 20}\n", encoding="utf-8")
    resolved = load_with_origins(path)
    assert resolved.settings.propagation.n_last == 20
    assert resolved.origins["propagation.n_last"] == "preset mine"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("propagation.topk=3", "unknown key propagation.topk. Did you mean top_k?"),
        ("propagatoin.top_k=3", "unknown key propagatoin. Did you mean propagation?"),
        ("labels.masks.encod=area", "unknown key labels.masks.encod. Did you mean encode?"),
        ("propagation.top_k=0", "propagation.top_k = 0: Input should be greater than or equal to 1. Allowed: 1 to"),
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


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "just text", "", "# nothing"])
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


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("6GB", 6 * 10**9),
        ("6G", 6 * 10**9),
        ("6GiB", 6 * 2**30),
        ("6000MB", 6 * 10**9),
        ("0.5GB", 5 * 10**8),
        (".5 g", 5 * 10**8),
        ("512 mib", 2**29),
        ("64k", 64_000),
        ("6000000000", 6 * 10**9),
        ("null", None),
    ],
)
def test_memory_is_given_with_its_unit(size, expected):
    assert load_settings("rgb", [f"max_memory={size}"]).max_memory == expected


@pytest.mark.parametrize("size", ["6,5GB", "6GB or so", "-6GB", "-5", "true", "6XB", "much", "'1e9'", "[6]"])
def test_what_is_no_size_of_memory_is_explained(size):
    with pytest.raises(UsageError, match=r"max_memory = .*: Not a size such as 6GB, 6GiB or 512MB\."):
        load_settings("rgb", [f"max_memory={size}"])


SHORT = "features: [{name: rgb, weight: 0.5}, {name: compact, timestep: 7}]"


def test_a_list_of_extractors_is_their_fusion(tmp_path):
    preset = tmp_path / "two.yaml"
    preset.write_text(SHORT)
    found = load_with_origins(preset, ["features.batch_size=2", "features.parts.1.timestep=9"])
    features = found.settings.features
    assert (features.name, features.batch_size) == ("fusion", 2)
    assert features.options["parts"] == [{"name": "rgb", "weight": 0.5}, {"name": "compact", "timestep": 9}]
    assert found.origins["features.parts.0.weight"] == "preset two"
    assert found.origins["features.parts.1.timestep"] == "--set"
    assert FeatureSettings.model_validate(yaml.safe_load(SHORT)["features"]).name == "fusion"


def test_the_list_can_be_given_as_an_override():
    found = load_with_origins("rgb", ["features=[{name: rgb}, {name: compact, seed: 3}]", "features.parts.0.weight=2"])
    assert found.settings.features.options["parts"] == [{"name": "rgb", "weight": 2}, {"name": "compact", "seed": 3}]
    assert found.origins["features.parts.1.seed"] == "--set"
    assert found.origins["features.batch_size"] == "default"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("features.parts.2.weight=1", "there is no 2 in a list of 2. They count from 0."),
        ("features.parts.last.weight=1", "there is no last in a list of 2"),
        ("features.parts.\u0661.weight=1", "there is no \u0661 in a list of 2"),
        ("features.parts.1=rgb", "parts.1 should be a mapping with the name of an extractor"),
        ("features.parts=rgb", "features.parts should be a list of up to 32 extractors"),
        ("features={name: rgb, a.b: 1}", "features.a.b should have a name of text without a dot"),
        ("features.parts.0.name.x=1", "name is a value, not a section"),
    ],
)
def test_a_part_that_is_not_there(tmp_path, override, words):
    preset = tmp_path / "two.yaml"
    preset.write_text(SHORT)
    with pytest.raises(UsageError) as error:
        load_settings(preset, [override])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("propagation.radius=.inf", "propagation.radius = inf: Input should be a finite number. Allowed: 0 to 10000."),
        ("propagation.radius=.nan", "propagation.radius = nan: Input should be a finite number."),
        ("propagation.radius=1e400", "propagation.radius = '1e400': Input should be a finite number."),
        (
            "labels.keypoints.sigma=2000",
            "sigma = 2000: Input should be less than or equal to 100. Allowed: 0.1 to 100.",
        ),
        ("propagation.n_last=1000000000", "Allowed: 0 to 10000."),
        ("propagation.top_k=1000000000", "Allowed: 1 to 10000."),
        ("propagation.temperature=1.0e-300", "Allowed: 1e-06 to 1000."),
        ("propagation.temperature=1.0e+300", "Allowed: 1e-06 to 1000."),
        ("video.short_side=1000000", "Allowed: 16 to 8192."),
        ("video.to_frame=99999999999", "Allowed: 1 to 1e+09."),
        ("features.batch_size=1000000", "Allowed: 1 to 1024."),
        ("propagation.top_k=true", "propagation.top_k = True: Input should be a number, not true or false."),
        ("labels.masks.vanish=no", "labels.masks.vanish = False: Input should be a number, not true or false."),
        ("features.timestep=.inf", "features.timestep should be a finite number."),
        ("features.parts=[{name: rgb, weight: .nan}]", "features.parts.0.weight should be a finite number."),
        ("features.seed=2020-01-01", "--set features.seed=2020-01-01 cannot be used: line 1 is a timestamp"),
        ("features.prompt=!!python/object:os.system x", "not valid YAML"),
    ],
)
def test_what_no_run_could_use_is_refused_with_its_range(override: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        load_settings("rgb", [override])
    assert words in str(error.value)


PLAIN = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(PLAIN, max_size=3)
        | st.dictionaries(st.text(), PLAIN, max_size=3)
    )
)
KEYS = sorted({*load_with_origins("rgb").origins, "features.timestep", "features.parts", "features", "labels"})


@settings(deadline=None)
@given(st.sampled_from(KEYS), PLAIN)
def test_a_value_is_refused_or_has_a_hash(key: str, value: object) -> None:
    try:
        found = load_settings("rgb", [f"{key}={json.dumps(value)}"])
    except UsageError:
        return
    assert len(settings_hash(found.model_dump())) == 64


def test_settings_made_in_python_are_checked_alike() -> None:
    for values in ({"propagation": {"top_k": True}}, {"features": {"seed": float("nan")}}, {"features": {1: 2}}):
        with pytest.raises(ValidationError):
            Settings.model_validate(values)


@pytest.mark.parametrize(
    "text",
    [
        b"propagation: {top_k: 3}\npropagation: {top_k: 4}\n",
        b"propagation: &a [*a]\n",
        b"features: {name: 0x" + b"f" * 5000 + b"}\n",
        b"a: !!timestamp 2001-99-99\n",
        b"1: 2\n",
        b"\xff\xfe\x00",
        b"features: '\\UFFFFFFFF'\n",
        b"[" * 3000,
        b"features: [[[rgb]]]\n",
        b"features: [{name: [rgb]}]\n",
        b"features: [{name: rgb, a.b: {c.d: 1}}]\n",
        b"features: {name: rgb, '': 1}\n",
    ],
)
def test_a_damaged_preset_is_an_error_of_ours(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_bytes(text)
    with pytest.raises(UsageError):
        all_settings(load_with_origins(path))
