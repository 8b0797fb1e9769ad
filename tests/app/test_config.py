from __future__ import annotations

import pytest

from propagate.settings import preset_names, preset_summary


def rows(result):
    return {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}


def test_list_names_every_preset_with_its_summary(run):
    result = run("config", "list")
    assert result.exit_code == 0
    for name in preset_names():
        assert name in rows(result)
        assert preset_summary(name).split()[0] in rows(result)[name]


def test_show_tells_value_and_origin_of_settings_and_extractor_options(run):
    result = run("config", "show", "compact", "--set", "propagation.top_k=9", "--set", "features.timestep=101")
    assert result.exit_code == 0, result.output
    shown = rows(result)
    assert shown["propagation.top_k"] == ["9", "--set"]
    assert shown["features.timestep"] == ["101", "--set"]
    assert shown["features.name"] == ["compact", "preset", "compact"]
    assert shown["features.seed"] == ["0", "default"]
    assert shown["video.to_frame"] == ["null", "default"]
    assert shown["output.overlay"] == ["true", "default"]


def test_show_reads_a_file(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("features: {name: rgb}\npropagation: {radius: 4}\n")
    result = run("config", "show", tmp_path / "mine.yaml")
    assert rows(result)["propagation.radius"] == ["4.0", "preset", "mine"]
    assert "features.timestep" not in rows(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope",), "nope"),
        (("rgb", "--set", "features.timestep=3"), "features.timestep: rgb has no such option"),
        (("rgb", "--set", "nowhere.a=3"), "nowhere"),
    ],
)
def test_show_refuses_what_a_run_would_refuse(run, arguments, message):
    result = run("config", "show", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
