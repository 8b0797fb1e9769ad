from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from propagate.benchmarks.benchmark import Scores, Table
from propagate.benchmarks.report.summary import MethodResult, write_summary, write_tables
from propagate.benchmarks.running.evaluation import plan, score, score_existing
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import Method, load_methods
from propagate.benchmarks.running.records import MANIFEST
from propagate.benchmarks.running.runner import run
from propagate.errors import InputError, UsageError
from propagate.files.atomic import temporary_path
from propagate.settings import load_settings
from tests.benchmarks.running.squares import FRAMES, Squares, Watching, make_squares


@pytest.fixture
def squares(tmp_path):
    return make_squares(tmp_path / "data", ("one", "deep/two"))


def evaluated(
    squares: Squares, folder: Path, *configs: str, overrides: tuple[str, ...] = (), **output: bool
) -> tuple[Output, tuple[Method, ...], list[str]]:
    """Run what is to be run; gives the names of those clips too."""
    methods = load_methods(configs, overrides, protocol=squares.settings)
    place = Output(folder, [method.name for method in methods], **output)
    tasks = plan(squares, methods, place).tasks
    run(squares, tasks, threads=1, observer=Watching())
    return place, methods, [f"{task.method.name} {task.clip.name}" for task in tasks]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_clips_of_one_method_lie_in_the_folder_those_of_several_in_their_own(squares, tmp_path):
    evaluated(squares, tmp_path / "a", "static")
    masks = [f"{index:05d}.png" for index in range(FRAMES)] + ["run.json"]
    clips = [f"{clip}/{name}" for clip in ("deep/two", "one") for name in masks]
    assert files(tmp_path / "a") == [MANIFEST, *clips]
    evaluated(squares, tmp_path / "b", "static", "flow")
    assert files(tmp_path / "b") == [MANIFEST, *(f"{name}/{clip}" for name in ("flow", "static") for clip in clips)]


def test_methods_that_join_one_leave_its_clips_where_they_are(squares, tmp_path):
    out = tmp_path / "out"
    evaluated(squares, out, "static")
    before = files(out)
    _, _, ran = evaluated(squares, out, "static", "flow", resume=True)
    assert ran == ["flow one", "flow deep/two"]
    assert set(files(out)) == {*before, *(f"flow/{name}" for name in before if name != MANIFEST)}
    # the layout is known the next time too, in whatever order they are named
    place, methods, ran = evaluated(squares, out, "flow", "static", resume=True)
    assert ran == []
    assert [place.of(method.name) for method in methods] == [out / "flow", out]
    with pytest.raises(UsageError, match="also holds the scores of static"):
        evaluated(squares, out, "flow", resume=True)
    evaluated(squares, out, "flow", overwrite=True)
    assert files(out) == before


def test_a_method_called_like_a_clip_cannot_join(squares, tmp_path):
    (tmp_path / "deep.yaml").write_text("features:\n  name: rgb\n")
    evaluated(squares, tmp_path / "out", "static")
    before = files(tmp_path / "out")
    with pytest.raises(UsageError, match=r"out/deep holds a clip of static"):
        evaluated(squares, tmp_path / "out", "static", str(tmp_path / "deep.yaml"), resume=True)
    assert files(tmp_path / "out") == before


def test_resume_runs_what_is_not_finished(squares, tmp_path):
    evaluated(replace(squares, clips=squares.clips[:1]), tmp_path / "out", "static")
    killed = tmp_path / "out" / "deep" / ".two.unfinished.abc"
    killed.mkdir(parents=True)
    (killed / "00000.png").write_bytes(b"half")
    _, _, ran = evaluated(squares, tmp_path / "out", "static", resume=True)
    assert ran == ["static deep/two"]
    assert not killed.exists()
    assert evaluated(squares, tmp_path / "out", "static", resume=True)[2] == []


def test_resume_with_other_settings_names_the_difference_and_touches_nothing(squares, tmp_path):
    out = tmp_path / "out"
    place, _, _ = evaluated(squares, out, "rgb", overrides=("propagation.top_k=3",))
    place.register([out / "scores.csv"])
    write_tables(out, squares.score(out).tables)
    before = files(out)
    with pytest.raises(UsageError, match=r"one was made with other settings: propagation.top_k: 3 -> 4\.") as error:
        evaluated(squares, out, "rgb", overrides=("propagation.top_k=4",), resume=True)
    assert "--overwrite" in error.value.remedy
    assert files(out) == before


def test_resume_notices_that_the_data_changed(squares, tmp_path):
    evaluated(squares, tmp_path / "out", "static")
    squares.clips[0].pictures[1].write_bytes(squares.clips[1].pictures[2].read_bytes())
    with pytest.raises(UsageError, match="pictures or first label of one"):
        evaluated(squares, tmp_path / "out", "static", resume=True)


def test_a_clip_that_has_lost_a_file_is_run_again(squares, tmp_path):
    out = tmp_path / "out"
    evaluated(squares, out, "static")
    (out / "one" / "00003.png").unlink()
    methods = load_methods(["static"])
    planned = plan(squares, methods, Output(out, ["static"], resume=True))
    assert [task.clip.name for task in planned.tasks] == ["one"]
    assert planned.finished == 1
    assert "has missing or changed files" in planned.notes[0]
    assert not (out / "one").exists()


def test_resume_goes_on_with_the_threads_of_the_finished_clips_or_refuses(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(Method, "depends_on_threads", True)
    out = tmp_path / "out"
    _, methods, _ = evaluated(squares, out, "rgb")
    before = files(out)
    with pytest.raises(UsageError, match=r"one was made with --threads 1,") as error:
        plan(squares, methods, Output(out, ["rgb"], resume=True), threads=2)
    assert "Give --threads 1, or none" in error.value.remedy
    assert files(out) == before
    for threads in (None, 1):
        planned = plan(squares, methods, Output(out, ["rgb"], resume=True), threads=threads)
        assert (planned.threads, planned.finished, planned.notes) == (1, 2, ())
    record = json.loads((out / "one" / "run.json").read_text())
    (out / "one" / "run.json").write_text(json.dumps(record | {"threads": 4}))
    planned = plan(squares, methods, Output(out, ["rgb"], resume=True))
    assert "different numbers of threads (1, 4)" in planned.notes[0]


def test_clips_that_another_device_made_are_told(squares, tmp_path, monkeypatch):
    monkeypatch.setattr("propagate.provenance.computes_in_bfloat16", lambda device: False)
    methods, out = load_methods(["rgb"], ["features.device=cpu"]), tmp_path / "out"
    run(squares, plan(squares, methods, Output(out, ["rgb"])).tasks, threads=1, observer=Watching())
    assert plan(squares, methods, Output(out, ["rgb"], resume=True)).notes == ()
    monkeypatch.setattr("propagate.provenance.computes_in_bfloat16", lambda device: True)
    (note,) = plan(squares, methods, Output(out, ["rgb"], resume=True)).notes
    assert "made with bfloat16 False; now it is bfloat16 True" in note


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_clips_of_a_gpu_are_scored_where_there_is_none(squares, tmp_path):
    (method,), out = load_methods(["rgb"], ["features.device=cpu"]), tmp_path / "out"
    run(squares, plan(squares, [method], Output(out, ["rgb"])).tasks, threads=1, observer=Watching())
    on_gpu = load_settings("rgb", ["features.device=cuda"])
    planned = plan(squares, [replace(method, resolved=on_gpu)], Output(out, ["rgb"], resume=True), threads=2)
    assert (planned.tasks, planned.finished) == ((), 2)


def test_threads_that_change_nothing_are_not_asked_for(squares, tmp_path):
    _, methods, _ = evaluated(squares, tmp_path / "out", "static")
    planned = plan(squares, methods, Output(tmp_path / "out", ["static"], resume=True), threads=2)
    assert (planned.threads, planned.finished) == (None, 2)


def test_a_method_more_may_be_added(squares, tmp_path):
    evaluated(squares, tmp_path / "out", "static", "flow")
    _, _, ran = evaluated(squares, tmp_path / "out", "static", "flow", "rgb", resume=True)
    assert ran == ["rgb one", "rgb deep/two"]


@pytest.mark.parametrize(("now", "lost"), [(("static",), "flow"), (("flow", "rgb"), "static")])
def test_resume_refuses_to_drop_a_method(squares, tmp_path, now, lost):
    evaluated(squares, tmp_path / "out", "static", "flow")
    before = files(tmp_path / "out")
    with pytest.raises(UsageError, match=lost) as error:
        evaluated(squares, tmp_path / "out", *now, resume=True)
    assert "--output" in error.value.remedy
    assert files(tmp_path / "out") == before


def test_overwrite_removes_what_is_ours_alone(squares, tmp_path):
    out = tmp_path / "out"
    place, _, _ = evaluated(squares, out, "static", "flow")
    place.register([out / "static" / "scores.csv", out / "summary.json"])
    write_tables(out / "static", squares.score(out / "static").tables)
    (out / "summary.json").write_text("{}")
    (out / "notes.txt").write_text("mine")
    one = replace(squares, clips=squares.clips[:1])
    _, _, ran = evaluated(one, out, "rgb", overwrite=True)
    assert ran == ["rgb one"]
    masks = [f"one/{index:05d}.png" for index in range(FRAMES)]
    assert files(out) == [MANIFEST, "notes.txt", *masks, "one/run.json"]
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "notes.txt", "one"]


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_what_somebody_else_wrote_is_never_removed(squares, tmp_path, flag):
    out = tmp_path / "out"
    (out / "one").mkdir(parents=True)
    (out / "one" / "00000.png").write_bytes(b"theirs")
    with pytest.raises(UsageError, match="one holds something that an evaluation did not write"):
        evaluated(squares, out, "static", **{flag: True})
    assert (out / "one" / "00000.png").read_bytes() == b"theirs"


def test_files_beside_ours_stop_an_overwrite_before_it_begins(squares, tmp_path):
    out = tmp_path / "out"
    evaluated(squares, out, "static")
    (out / "deep" / "two" / "mine.txt").write_text("mine")
    before = files(out)
    with pytest.raises(UsageError, match=r"deep/two also holds files .* mine.txt"):
        evaluated(squares, out, "static", overwrite=True)
    assert files(out) == before


def test_a_score_file_of_somebody_else_is_not_replaced(tmp_path):
    place = Output(tmp_path / "out", ["static"])
    place.clear([])
    (tmp_path / "out" / "scores.csv").write_text("theirs")
    with pytest.raises(UsageError, match=r"scores\.csv"):
        place.register([tmp_path / "out" / "scores.csv"])


def test_an_output_that_is_not_empty_asks_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"is not empty.*--resume.*--overwrite"):
        Output(tmp_path, ["static"])
    with pytest.raises(UsageError, match="do not go together"):
        Output(tmp_path, ["static"], resume=True, overwrite=True)


def test_a_folder_in_which_nothing_was_written_goes_again(squares, tmp_path):
    place = Output(tmp_path / "new" / "out", ["static", "flow"])
    plan(squares, load_methods(["static", "flow"]), place)
    place.discard_if_empty()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_scores_of_what_was_run(squares, tmp_path):
    squares.clips[1].pictures[4].write_bytes(b"no picture")
    methods = load_methods(["static", "flow"])
    place = Output(tmp_path / "out", ["static", "flow"])
    outcomes = run(squares, plan(squares, methods, place).tasks, threads=1, observer=Watching())
    results = score(squares, methods, outcomes, place)
    assert [result.name for result in results] == ["static", "flow"]
    for result in results:
        assert result.results == tmp_path / "out" / result.name
        assert "00004.png cannot be read" in result.failed["deep/two"]
        assert result.frames_per_second > 0
        assert result.scores.clips.keys() == {"one"}
    assert results[0].scores.totals["J"] < results[1].scores.totals["J"]  # the squares move


def test_a_method_of_which_all_failed_has_no_scores(squares, tmp_path):
    for clip in squares.clips:
        clip.pictures[4].write_bytes(b"no picture")
    methods, place = load_methods(["static"]), Output(tmp_path / "out", ["static"])
    outcomes = run(squares, plan(squares, methods, place).tasks, threads=1, observer=Watching())
    (result,) = score(squares, methods, outcomes, place)
    assert result.scores.totals == {}
    assert result.failed.keys() == {"one", "deep/two"}
    assert result.frames_per_second is None


def test_existing_results_are_scored_under_the_name_of_their_folder(squares, tmp_path):
    evaluated(squares, tmp_path / "theirs", "static")
    (result,) = score_existing(squares, [tmp_path / "theirs"])
    assert (result.name, result.settings, result.settings_hash) == ("theirs", {}, "")
    assert result.scores.totals == squares.score(tmp_path / "theirs").totals
    with pytest.raises(InputError, match="there is no such folder"):
        score_existing(squares, [tmp_path / "nowhere"])
    with pytest.raises(InputError, match="could be scored"):
        score_existing(squares, [tmp_path])
    bad, good = score_existing(squares, [tmp_path / "nowhere", tmp_path / "theirs"])
    assert (bad.name, bad.scores.totals, bad.scores.clips) == ("nowhere", {}, {})
    assert "there is no such folder" in bad.scores.remarks[0]
    assert good.scores.totals == result.scores.totals
    with pytest.raises(UsageError, match="two folders are called theirs"):
        score_existing(squares, [tmp_path / "theirs", tmp_path / "other" / "theirs"])


def test_tables_are_csv_with_line_feeds(tmp_path):
    table = Table("scores.csv", ("clip", "J"), (("one, two", "0.500"), ("three", "nan")))
    (path,) = write_tables(tmp_path / "new", [table])
    assert path.read_bytes() == b'clip,J\n"one, two",0.500\nthree,nan\n'
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["clip", "J"], ["one, two", "0.500"], ["three", "nan"]]


def test_the_summary_has_everything_and_null_for_what_does_not_exist(squares, tmp_path):
    scores = Scores({"J": 0.5, "F": math.nan}, {"one": {"J": 0.5}}, (), (), {"two": ("bad",)}, ("Half.",))
    result = MethodResult(
        "mine",
        {"a.b": (1, 2), "c": tmp_path},
        {"a.b": "--set", "c": "default"},
        "abc",
        scores,
        tmp_path,
        2.5,
        {"x": "y"},
    )
    content = json.loads(write_summary(tmp_path, squares, [result], {"torch": "2"}, "propagate x").read_text())
    assert (content["benchmark"], content["title"]) == ("squares", "Squares, all of them")
    assert content["remarks"] == ["Squares are easy."]
    assert (content["versions"], content["command"]) == ({"torch": "2"}, "propagate x")
    (method,) = content["methods"]
    assert method["totals"] == {"J": 0.5, "F": None}
    assert (method["problems"], method["failed"]) == ({"two": ["bad"]}, {"x": "y"})
    assert method["settings"] == {"a.b": [1, 2], "c": str(tmp_path)}
    assert (method["settings_hash"], method["frames_per_second"], method["peak_memory"]) == ("abc", 2.5, None)
    assert content["published"] == [{"method": "Theirs", "totals": {"J": 0.5}, "source": "a paper", "command": ""}]


def test_a_second_evaluation_of_a_held_folder_is_refused(squares, tmp_path):
    out = tmp_path / "new" / "out"
    place, other = Output(out, ["static"]), Output(out, ["static"])
    with place.lock() as notes:
        assert notes == ()
        evaluated(squares, out, "static", resume=True)  # what lies there matters, not who is asked
        before = files(out)
        for flag in ("resume", "overwrite"):
            with (
                pytest.raises(InputError, match="Another run is writing"),
                Output(out, ["static"], **{flag: True}).lock(),
            ):
                pass
        with pytest.raises(InputError, match="Another run is writing"), other.lock():
            pass
        assert files(out) == before
    # what was written meanwhile counts
    with pytest.raises(UsageError, match="is not empty"), other.lock():
        pass
    with Output(out, ["static"], resume=True).lock():
        pass


def test_leftovers_of_killed_runs_go_at_the_next_start_in_this_folder_only(squares, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    place, _, _ = evaluated(squares, out, "static", "flow")
    place.register([out / "plots" / "sequences.png", out / "summary.json"])
    places = [out, out / "static", out / "flow", out / "plots", elsewhere]
    for folder in places:
        folder.mkdir(exist_ok=True)
        temporary_path(folder / "summary.json").write_text("half")
    (out / "static" / ".one.unfinished.abc").mkdir()
    kept = files(elsewhere)
    methods = load_methods(["static", "flow"])
    again = Output(out, ["static", "flow"], resume=True)
    with again.lock():
        plan(squares, methods, again)
    left = [path for path in out.rglob(".*") if path.name != MANIFEST]
    assert left == []
    assert files(elsewhere) == kept


def test_a_new_folder_goes_again_when_it_is_let_go_empty(squares, tmp_path):
    place = Output(tmp_path / "new" / "out", ["static"])
    with place.lock():
        plan(squares, load_methods(["static"]), place)
        assert place.discard_if_empty()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
