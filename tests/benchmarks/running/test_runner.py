from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import pytest

from propagate.benchmarks.running.clip_folder import is_complete
from propagate.benchmarks.running.methods import load_method
from propagate.benchmarks.running.records import ClipRecord, read_record
from propagate.benchmarks.running.resources import threads_per_job
from propagate.benchmarks.running.runner import Task, run
from propagate.errors import PropagateWarning, UsageError
from tests.benchmarks.running.squares import FRAMES, Squares, Watching, make_squares


def tasks_of(squares: Squares, out: Path, config: str = "static", *overrides: str) -> list[Task]:
    method = load_method(config, overrides, protocol=squares.settings)
    return [Task(method, clip, out / clip.name) for clip in squares.clips]


def digests(out: Path) -> dict[str, str]:
    """Of every mask; the records hold seconds."""
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.png")}


def test_every_clip_is_run_and_reported(tmp_path):
    squares, watching = make_squares(tmp_path / "data", ("one", "deep/two")), Watching()
    outcomes = run(squares, tasks_of(squares, tmp_path / "out"), threads=1, observer=watching)
    assert [outcome.task.clip.name for outcome in outcomes] == watching.begun == ["one", "deep/two"]
    assert list(outcomes) == watching.outcomes
    assert watching.frames == {"one": FRAMES, "deep/two": FRAMES}
    assert all(outcome.run.frames == FRAMES and not outcome.error for outcome in outcomes)
    assert all(outcome.run.peak_memory is None or outcome.run.peak_memory > 2**20 for outcome in outcomes)
    assert len(digests(tmp_path / "out")) == 2 * FRAMES


def test_a_failing_clip_leaves_nothing_and_stops_nobody(tmp_path):
    squares = make_squares(tmp_path / "data")
    squares.clips[1].pictures[4].write_bytes(b"no picture")
    watching = Watching()
    outcomes = run(squares, tasks_of(squares, tmp_path / "out"), threads=1, observer=watching)
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, False]
    assert "00004.png cannot be read. Replace it." in outcomes[1].error
    assert "InputError" in outcomes[1].trace
    assert watching.frames["two"] == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "three"]


def test_an_unexpected_error_is_the_failure_of_its_clip(tmp_path, monkeypatch):
    squares = make_squares(tmp_path / "data", ("one",))

    def broken(*_arguments):
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(Squares, "label", broken)
    (outcome,) = run(squares, tasks_of(squares, tmp_path / "out"), threads=1, observer=Watching())
    assert outcome.error == "ZeroDivisionError: by accident"
    assert list((tmp_path / "out").iterdir()) == []


def test_our_own_warnings_are_told_apart_from_those_of_others(tmp_path, monkeypatch):
    squares = make_squares(tmp_path / "data", ("one",))
    whole = Squares.label

    def warned(self, clip):
        warnings.warn("features are damaged", PropagateWarning, stacklevel=1)
        warnings.warn("this is old", UserWarning, stacklevel=1)
        return whole(self, clip)

    monkeypatch.setattr(Squares, "label", warned)
    (outcome,) = run(squares, tasks_of(squares, tmp_path / "out"), threads=1, observer=Watching())
    assert outcome.run.notes == ("features are damaged",)
    assert "this is old" in outcome.run.details


def test_a_clip_whose_frames_end_early_has_failed(tmp_path, monkeypatch):
    squares = make_squares(tmp_path / "data", ("one",))
    whole = Squares.frames
    monkeypatch.setattr(Squares, "frames", lambda self, clip: list(whole(self, clip))[:4])
    (outcome,) = run(squares, tasks_of(squares, tmp_path / "out"), threads=1, observer=Watching())
    assert "4 of 6 frames were read" in outcome.error


def test_one_process_or_two_give_the_same_bytes(tmp_path):
    squares = make_squares(tmp_path / "data")
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        outcomes = run(squares, tasks_of(squares, out, "rgb"), jobs=jobs, threads=1, observer=Watching())
        assert [outcome.error for outcome in outcomes] == ["", "", ""]
    assert len(digests(tmp_path / "1")) == 3 * FRAMES
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_a_process_that_is_killed_is_the_failure_of_its_clip(tmp_path):
    squares, watching = make_squares(tmp_path / "data", ("one", "two", "three", "four")), Watching()
    (squares.clips[0].pictures[0].parent / "dies").touch()
    squares.clips[1].pictures[4].write_bytes(b"no picture")  # an ordinary failure, of the other process
    outcomes = run(squares, tasks_of(squares, tmp_path / "out"), jobs=2, threads=1, observer=watching)
    errors = [outcome.error for outcome in outcomes]
    assert errors[0] == "Its process ended (killed by SIGKILL)."
    assert "00004.png cannot be read" in errors[1]
    assert errors[2:] == ["", ""]
    assert watching.frames == {"one": 3, "two": 4, "three": FRAMES, "four": FRAMES}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["four", "three"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_extractor_that_cannot_be_built_ends_the_run_before_it_began(tmp_path, jobs):
    squares = make_squares(tmp_path / "data", ("one", "two"))
    tasks = tasks_of(squares, tmp_path / "out", "rgb", "features.device=cuda:77")
    with pytest.raises(UsageError, match="device cuda:77"):
        run(squares, tasks, jobs=jobs, threads=1, observer=Watching())
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_leaves_finished_clips_and_nothing_else(tmp_path):
    squares = make_squares(tmp_path / "data")
    (squares.clips[1].pictures[0].parent / "stops").touch()
    with pytest.raises(KeyboardInterrupt):
        run(squares, tasks_of(squares, tmp_path / "out"), threads=1, observer=Watching())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]


class Interrupting(Watching):
    def frame(self, task: Task) -> None:
        super().frame(task)
        if task.clip.name == "three":
            raise KeyboardInterrupt


def test_an_interrupt_ends_all_processes(tmp_path):
    import multiprocessing

    squares = make_squares(tmp_path / "data", ("one", "two", "three", "four"))
    with pytest.raises(KeyboardInterrupt):
        run(squares, tasks_of(squares, tmp_path / "out"), jobs=2, threads=1, observer=Interrupting())
    assert multiprocessing.active_children() == []
    left = list((tmp_path / "out").iterdir())
    assert left  # at least that of the process that went on to the third
    assert all(is_complete(folder, read_record(folder, ClipRecord)) for folder in left)


def test_threads_are_shared_among_jobs_unless_they_are_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_job(4) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert [threads_per_job(jobs) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
