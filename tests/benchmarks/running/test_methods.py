from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from propagate.benchmarks.running import methods
from propagate.benchmarks.running.methods import load_method, load_methods
from propagate.errors import UsageError
from propagate.settings import FeatureSettings
from propagate.types import Frame, Mask
from tests.benchmarks.running.squares import FRAMES, picture, square_ids


def test_a_preset_has_every_setting_with_its_origin():
    method = load_method(
        "rgb", ["propagation.top_k=9"], protocol=["propagation.top_k=3", "video.short_side=48"], device="cpu"
    )
    assert method.name == "rgb"
    assert method.settings.keys() == method.origins.keys()
    expected = {
        "propagation.top_k": (9, "--set"),  # the user's goes before the protocol's
        "video.short_side": (48, "protocol"),
        "features.device": ("cpu", "--device"),
        "features.name": ("rgb", "preset rgb"),
        "propagation.radius": (method.resolved.propagation.radius, "default"),
    }
    assert {key: (method.settings[key], method.origins[key]) for key in expected} == expected


def test_the_defaults_of_the_extractor_are_among_the_settings():
    method = load_method("compact")
    assert method.settings["features.timestep"] == 51
    assert method.settings["features.seed"] == 0


def test_the_hash_tells_settings_apart_whatever_they_are_called(tmp_path):
    renamed = tmp_path / "other.yaml"
    renamed.write_text("features:\n  name: rgb\n")
    again = tmp_path / "again.yaml"
    again.write_text("features:\n  name: rgb\npropagation:\n  top_k: 5\n")
    hashes = [load_method(config).settings_hash for config in (renamed, again)]
    assert hashes[0] == hashes[1]  # 5 is the default, said or not
    assert load_method(renamed, ["propagation.top_k=6"]).settings_hash != hashes[0]
    assert load_method(renamed).name == "other"
    assert len({load_method(name).settings_hash for name in ("static", "flow", "rgb", "compact")}) == 4


def test_weights_on_this_machine_are_in_the_hash(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"first")
    before = load_method("compact", [f"features.weights={folder}"])
    assert before.origins["features.weights (files)"] == "file"
    (folder / "model.safetensors").write_bytes(b"other")
    assert load_method("compact", [f"features.weights={folder}"]).settings_hash != before.settings_hash
    assert "features.weights (files)" in load_method("compact").settings  # the package's own


@pytest.mark.parametrize("config", ["static", "flow", "rgb"])
def test_a_method_can_be_sent_to_another_process_and_carries_there(config):
    method = pickle.loads(pickle.dumps(load_method(config, protocol=["video.short_side=48"])))
    frames = [Frame(picture(index), index, index / 10) for index in range(FRAMES)]
    method.prepare()
    predictions = list(method.carry(frames, Mask(square_ids(0))))
    assert [prediction.index for prediction in predictions] == list(range(FRAMES))
    assert all(np.isin(prediction.mask.ids, (0, 3, 7)).all() for prediction in predictions)


def test_the_extractor_is_built_once_and_only_the_last_is_kept(monkeypatch):
    built = []
    build = methods.build_extractor
    monkeypatch.setattr(
        methods, "build_extractor", lambda name, **options: built.append((name, options)) or build(name, **options)
    )
    monkeypatch.setattr(methods, "_built", {})
    first, second = load_method("rgb"), load_method("rgb", device="cpu")
    for method in (first, first, load_method("static"), first, second, first):
        method.prepare()
    assert built == [("rgb", {}), ("rgb", {"device": "cpu"}), ("rgb", {})]
    assert len(methods._built) == 1


@pytest.mark.parametrize(
    ("configs", "overrides", "message"),
    [
        (["rgb", "rgb"], [], "--config rgb is given twice"),
        (["rgbb"], [], "no such preset"),
        (["rgb"], ["features.timestep=3"], "rgb has no such option"),
        (["rgb"], ["propagation.topk=3"], "unknown key propagation.topk"),
        (["static", "flow"], ["propagation.top_k=3"], "static and flow have no settings"),
        (["static"], ["propagation.top_k=3"], "static has no settings"),
        ([], ["propagation.top_k=3"], "existing results have no settings"),
        (["statc"], [], "Did you mean static"),
        (["flwo"], [], "Did you mean flow"),
        (["compct"], [], "Did you mean compact"),
        (["rgb"], ["video.stride=2"], "the data set determines the frames"),
    ],
)
def test_wrong_use(configs, overrides, message):
    with pytest.raises(UsageError, match=message):
        load_methods(configs, overrides)


def test_two_files_of_one_name_are_one_too_many(tmp_path):
    paths = [tmp_path / "a" / "mine.yaml", tmp_path / "b" / "mine.yml"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("features:\n  name: rgb\n")
    with pytest.raises(UsageError, match="--config mine is given twice"):
        load_methods(paths)


def test_baselines_beside_a_preset_let_its_settings_through():
    found = load_methods(["static", "rgb"], ["propagation.top_k=3"])
    assert [method.settings.get("propagation.top_k") for method in found] == [None, 3]


def test_only_options_that_name_files_are_looked_up(tmp_path, monkeypatch):
    from propagate.provenance import local_weights

    monkeypatch.chdir(tmp_path)
    Path("dog").write_text("no weights")
    features = FeatureSettings(name="dift_sd", prompt="dog", weights="nobody/nothing")
    assert local_weights(features) == {}


def test_videowalks_poses_need_its_stride():
    """Under videowalk's protocol a grid of another stride is refused before a clip is run; any other codec takes it."""
    options = ["labels.keypoints.codec=jhmdb", "video.short_side=64", "features.block=0"]
    with pytest.raises(UsageError, match=r"cells of 16 pixels.*needs cells of 8") as error:
        load_method("compact", options, device="cpu").prepare()
    assert "--protocol strict" in error.value.remedy
    load_method("compact", options[1:], device="cpu").prepare()
    load_method("compact", options[:2], device="cpu").prepare()
