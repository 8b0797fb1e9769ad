from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from propagate.benchmarks.report.summary import MethodResult, unscored_clips
from propagate.benchmarks.running import sweep
from propagate.benchmarks.running.clip_folder import Run
from propagate.benchmarks.running.methods import load_method
from propagate.benchmarks.running.runner import Outcome, Task
from propagate.benchmarks.running.sweep import grid_methods, read_grid, run_grid, sweep_figure, sweep_table
from propagate.errors import UsageError, WeightsError
from tests.benchmarks.report.reporting import CLIPS, FlatPictures, method

TWO = read_grid(["features.timestep=21,51,101", "features.block=1,2", "propagation.top_k=10"])
ALL = dict.fromkeys(CLIPS, 0.5)


def results(*levels: float) -> list[MethodResult]:
    return [method(TWO.name(cell), dict.fromkeys(CLIPS, level)) for cell, level in zip(TWO.cells, levels, strict=True)]


def test_settings_with_several_values_span_the_grid_and_the_others_are_fixed():
    assert [(axis.key, axis.values) for axis in TWO.axes] == [
        ("features.timestep", ("21", "51", "101")),
        ("features.block", ("1", "2")),
    ]
    assert TWO.fixed == ("propagation.top_k=10",)
    assert TWO.cells == ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    assert TWO.name((1, 0)) == "features.timestep=51,features.block=1"


@pytest.mark.parametrize(
    ("text", "values", "overrides"),
    [
        ("[1, 2],[3]", ("[1, 2]", "[3]"), ("k=[1, 2]", "k=[3]")),
        ("null,0.5,true", ("null", "0.5", "true"), ("k=null", "k=0.5", "k=true")),
        ('"a,b",c', ("a,b", "c"), ('k="a,b"', 'k="c"')),
    ],
)
def test_values_are_separated_as_in_a_yaml_list(text, values, overrides):
    (axis,) = read_grid([f"k={text}"]).axes
    assert axis.values == values
    assert axis.overrides == overrides


@pytest.mark.parametrize("text", ["[1, 2]", "", "null", '"a,b"', "{a: 1, b: 2}"])
def test_one_value_is_fixed_and_left_as_it_is(text):
    grid = read_grid([f"a.b={text}", "c=1,2"])
    assert grid.fixed == (f"a.b={text}",)
    assert len(grid.axes) == 1


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ([], "No setting has several values"),
        (["a=1", "b=[1, 2]"], "No setting has several values"),
        (["a=1,2", "b=1,2", "c=1,2"], "3 settings have several values: a, b, c"),
        (["a=1,2", "a=3"], "--set a is given twice"),
        (["a=1,2,1"], "1 is given twice"),
        (["a=1,,2"], "--set a=1,,2"),
    ],
)
def test_what_is_no_grid_is_a_usage_error_with_a_remedy(assignments, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_grid(assignments)
    assert caught.value.remedy


def test_names_are_folders_also_where_values_are_paths():
    grid = read_grid(["features.weights=/a/b.pt,../b.pt"])
    names = [grid.name(cell) for cell in grid.cells]
    assert names == ["features.weights=%2Fa%2Fb.pt", "features.weights=..%2Fb.pt"]
    assert all(Path(name).name == name for name in names)


def test_every_combination_has_its_settings():
    grid = read_grid(["propagation.top_k=1,5", "propagation.radius=2,4", "propagation.n_last=3"])
    methods = grid_methods(grid, "rgb")
    keys = ("propagation.top_k", "propagation.radius", "propagation.n_last")
    assert [tuple(found.settings[key] for key in keys) for found in methods] == [
        (1, 2, 3),
        (1, 4, 3),
        (5, 2, 3),
        (5, 4, 3),
    ]
    assert [found.name for found in methods] == [grid.name(cell) for cell in grid.cells]
    assert len({found.settings_hash for found in methods}) == 4


@pytest.mark.parametrize(("key", "config"), [("propagation.tpo_k", "rgb"), ("propagation.top_k", "static")])
def test_unknown_settings_and_baselines_are_usage_errors(key, config):
    with pytest.raises(UsageError):
        grid_methods(read_grid([f"{key}=1,5"]), config)


def test_the_table_has_a_row_for_every_combination():
    table = sweep_table(TWO, FlatPictures(), results(0.5, 0.25, 0.75, 0.625, 0.5, 0.125))
    assert table.file == "sweep.csv"
    assert table.columns == ("features.timestep", "features.block", "J&F", "J-Mean", "failed")
    assert table.rows[0] == ("21", "1", "0.500000", "0.510000", "")
    assert table.rows[3] == ("51", "2", "0.625000", "0.635000", "")
    assert len(table.rows) == 6


def test_a_combination_that_lacks_clips_is_failed_and_has_no_totals():
    found = results(0.5, 0.25, 0.75, 0.625, 0.5, 0.125)
    found[2] = method(found[2].name, {CLIPS[0]: 0.99})  # one clip of three: its total is the best of all
    found[3] = replace(found[3], failed={CLIPS[1]: "Memory ran out."})
    assert unscored_clips(FlatPictures(), found[2]) == CLIPS[1:]
    table = sweep_table(TWO, FlatPictures(), found)
    assert table.rows[2] == ("51", "1", "", "", " ".join(CLIPS[1:]))
    assert table.rows[3] == ("51", "2", "", "", CLIPS[1])
    axes = sweep_figure(TWO, FlatPictures(), found).axes[0]
    assert [text.get_text() for text in axes.texts] == ["50.0", "failed", "50.0", "25.0", "failed", "12.5"]


def test_the_heat_map_shows_every_combination_in_its_cell():
    levels = (0.5, 0.25, 0.75, 0.625, 0.375, 0.125)
    axes = sweep_figure(TWO, FlatPictures(), results(*levels)).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("features.timestep", "features.block")
    assert axes.get_title(loc="left") == FlatPictures().title
    assert [label.get_text() for label in axes.get_xticklabels()] == ["21", "51", "101"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2"]
    written = {(round(x), round(y)): text.get_text() for text in axes.texts for x, y in [text.get_position()]}
    assert written == {cell: f"{100 * level:.1f}" for cell, level in zip(TWO.cells, levels, strict=True)}
    (frame,) = axes.patches
    assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (1, 0)  # 0.75: timestep 51, block 1


def test_one_axis_is_a_line():
    grid = read_grid(["features.block=1,2"])
    found = [
        method(grid.name(cell), dict.fromkeys(CLIPS, level))
        for cell, level in zip(grid.cells, (0.25, 0.5), strict=True)
    ]
    axes = sweep_figure(grid, FlatPictures(), found).axes[0]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.25, 0.5])
    assert axes.get_xlabel() == "features.block"


class _Observer:
    def __init__(self) -> None:
        self.log: list[tuple[str, str, str]] = []

    def started(self, task: Task) -> None:
        self.log.append(("started", task.method.name, task.clip.name))

    def frame(self, task: Task) -> None:
        self.log.append(("frame", task.method.name, task.clip.name))

    def ended(self, outcome: Outcome) -> None:
        state = "ended" if outcome.run else "failed"
        self.log.append((state, outcome.task.method.name, outcome.task.clip.name))


def tasks_of(*names: str) -> list[Task]:
    preset = load_method("rgb")
    clips = FlatPictures().clips[:2]
    return [Task(replace(preset, name=name), clip, Path(name) / clip.name) for name in names for clip in clips]


def fake_run(bad: tuple[str, ...], after: int):
    """A runner to which the extractor of the bad methods is lost after so many clips."""

    def run(benchmark, tasks, *, jobs, threads, observer):
        assert len({task.method.name for task in tasks}) == 1
        for number, task in enumerate(tasks):
            if task.method.name in bad and number == after:
                raise WeightsError(f"No weights for {task.method.name}.", "Get them.")
            observer.started(task)
            observer.frame(task)
            observer.ended(Outcome(task, Run(1, 1.0, 1, 1)))
        return ()

    return run


@pytest.mark.parametrize("after", [0, 1])
def test_a_combination_that_cannot_be_built_fails_alone(monkeypatch, after):
    monkeypatch.setattr(sweep, "run", fake_run(("b",), after))
    tasks, observer = tasks_of("a", "b", "c"), _Observer()
    outcomes = run_grid(FlatPictures(), tasks, jobs=1, threads=1, observer=observer)
    assert [outcome.task for outcome in outcomes] == tasks
    failed = [outcome for outcome in outcomes if outcome.run is None]
    assert [outcome.task for outcome in failed] == tasks[2 + after : 4]
    assert all("No weights for b." in outcome.error for outcome in failed)
    ends = [entry[1:] for entry in observer.log if entry[0] in ("ended", "failed")]
    assert ends == [(task.method.name, task.clip.name) for task in tasks]


def test_where_nothing_can_be_built_the_reason_is_raised(monkeypatch):
    monkeypatch.setattr(sweep, "run", fake_run(("a", "b"), 0))
    with pytest.raises(WeightsError, match="No weights for a"):
        run_grid(FlatPictures(), tasks_of("a", "b"), jobs=1, threads=1, observer=_Observer())


def test_with_nothing_left_to_run_there_are_no_outcomes():
    assert run_grid(FlatPictures(), [], jobs=1, threads=1, observer=_Observer()) == ()
