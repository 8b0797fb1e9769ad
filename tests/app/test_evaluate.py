"""`propagate evaluate` on a tree in DAVIS layout."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from propagate.app.evaluate import clips, evaluation
from propagate.app.evaluate.data_sets import Choices, Running
from propagate.app.options import Weights
from propagate.app.terminal.console import Terminal
from propagate.benchmarks.report import report
from propagate.formats import read_indexed_png
from propagate.weights.consent import CONSENT
from propagate.weights.registry import MODELS
from tests.app.conftest import FRAMES, picture, square_ids
from tests.app.test_program import HELP
from tests.benchmarks.running.squares import make_squares
from tests.places import PARITY_DATA

LONG = 200
QUICK = ("--no-report", "-q")


def make_tree(root: Path, **lengths: int) -> Path:
    """DAVIS-2016: clips of so many frames, the eight of the moving square forward and backward again and again."""
    for name, count in lengths.items():
        frames, masks = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        order = [*range(FRAMES), *range(FRAMES - 2, 0, -1)]
        for index in range(count):
            shown = order[index % len(order)]
            Image.fromarray(picture(shown)).save(frames / f"{index:05d}.jpg", quality=95)
            Image.fromarray(square_ids(shown) * np.uint8(255)).save(masks / f"{index:05d}.png")
    return root


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "davis", one=8, two=6)


def davis(tree: Path, *arguments: object) -> list[object]:
    return ["evaluate", "davis", "--data", tree, "--year", "2016", "--split", "all", *arguments]


def csv_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.csv")}


def test_two_methods_side_by_side(run, tree, tmp_path):
    out = tmp_path / "out"
    result = run(*davis(tree, "--config", "static", "--config", "flow", "-o", out, "-v"))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    scores = {row[0]: float(row[1]) for row in rows if row and row[0] in ("static", "flow")}
    assert scores["flow"] > scores["static"] + 20
    assert "static one: 8 frames" in result.stderr
    assert "All sequences of the tree" in result.stderr
    summary = json.loads((out / "summary.json").read_text())
    totals = {method["name"]: method["totals"]["J&F"] for method in summary["methods"]}
    assert {name: round(100 * value, 1) for name, value in totals.items()} == scores
    assert summary["title"].startswith("DAVIS-2016")
    for name in ("static", "flow"):
        assert len(list((out / name / "one").glob("*.png"))) == 8
        assert (out / name / "global_results-all.csv").is_file()
    assert (read_indexed_png(out / "static" / "two" / "00005.png").ids == square_ids(0)).all()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "static" in page
    assert "flow" in page


def test_results_are_scored_and_nothing_is_run_or_written(run, tree, tmp_path):
    out = tmp_path / "out"
    run(*davis(tree, "--config", "static", "-o", out, *QUICK))
    scored = csv_files(out)
    before = sorted(tmp_path.rglob("*"))
    result = run(*davis(tree, "--results", out))
    assert result.exit_code == 0, result.output
    assert "out" in result.stdout
    assert "frames/s" in run(*davis(tree, "--results", out, "-q")).stdout  # the scores are nowhere else
    assert sorted(tmp_path.rglob("*")) == before
    both = tmp_path / "both"
    result = run(*davis(tree, "--results", out, "--config", "flow", "-o", both, *QUICK))
    assert result.exit_code == 0, result.output
    again = csv_files(both / "out")
    assert again == scored
    assert not (both / "out" / "one").exists()
    assert (both / "flow" / "one" / "run.json").is_file()


def test_results_in_the_output_are_not_overwritten(run, tree, tmp_path):
    out = tmp_path / "out"
    run(*davis(tree, "--config", "static", "-o", out, *QUICK))
    result = run(*davis(tree, "--results", out, "-o", out, "--overwrite"))
    assert result.exit_code == 2
    assert "lies in the output folder" in result.stderr
    assert (out / "one" / "00007.png").is_file()


def test_a_failing_clip_is_told_and_the_rest_is_scored(run, tree, tmp_path):
    (tree / "JPEGImages" / "480p" / "one" / "00005.jpg").write_bytes(b"\xff\xd8 no picture")
    out = tmp_path / "out"
    result = run(*davis(tree, "--config", "static", "-o", out, "--no-report"))
    assert result.exit_code == 6, result.output
    assert "static, one: " in result.stderr
    assert "00005.jpg" in result.stderr
    (method,) = json.loads((out / "summary.json").read_text())["methods"]
    assert "00005.jpg" in method["failed"]["one"]
    assert method["clips"].keys() == {"two"}
    assert not (out / "one").exists()
    assert run(*davis(tree, "--config", "static", "-o", out, "--resume", *QUICK)).exit_code == 6


def test_every_clip_failed(run, tree, tmp_path):
    for name in ("one", "two"):
        (tree / "JPEGImages" / "480p" / name / "00004.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    result = run(*davis(tree, "--config", "static", "-o", out))
    assert result.exit_code == 6, result.output
    assert json.loads((out / "summary.json").read_text())["methods"][0]["failed"].keys() == {"one", "two"}


def test_a_clip_whose_truth_cannot_be_read_is_a_failure(run, tree, tmp_path):
    truth = tree / "Annotations" / "480p" / "two" / "00003.png"
    truth.write_bytes(truth.read_bytes()[:-40])  # its size can still be read, which is all that is looked at before
    out = tmp_path / "out"
    for arguments in (["--config", "static", "-o", out, "--no-report"], ["--results", out]):
        result = run(*davis(tree, *arguments))
        assert result.exit_code == 6, result.output
        assert "error: two: " in result.stderr
        assert "00003.png" in result.stderr
        assert "(1 of 2 clips)" in result.stdout


def test_results_that_lack_a_clip_are_marked_and_a_failure(run, tree, tmp_path):
    out, part = tmp_path / "out", tmp_path / "part"
    assert run(*davis(tree, "--config", "flow", "-o", out, *QUICK)).exit_code == 0
    shutil.copytree(out / "one", part / "one")
    result = run(*davis(tree, "--results", out, "--results", part, "-o", tmp_path / "both"))
    assert result.exit_code == 6, result.output
    rows = [line.strip() for line in result.stdout.splitlines()]
    assert any(row.startswith("part (1 of 2 clips)") for row in rows)
    assert any(row.startswith("out ") and "clips" not in row for row in rows)
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert page.index(">out<") < page.index(">part<")


def test_results_of_nothing_do_not_stop_the_others(run, tree, tmp_path):
    out = tmp_path / "out"
    assert run(*davis(tree, "--config", "static", "-o", out, *QUICK)).exit_code == 0
    result = run(*davis(tree, "--results", tmp_path / "nowhere", "--results", out))
    assert result.exit_code == 6, result.output
    assert "error: nowhere: " in result.stderr
    assert "there is no such folder" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["nowhere", "(0", "of", "2", "clips)"] in [row[:5] for row in rows]
    (scores,) = [row for row in rows if row[:1] == ["out"]]
    assert float(scores[1]) > 0


def test_a_name_with_a_typo_is_told_before_the_data_set_is_read(run, tmp_path):
    for command, *options in (["evaluate"], ["sweep", "--set", "propagation.top_k=1,5"]):
        result = run(command, "davis", "--data", tmp_path / "nowhere", "--year", "2016", "-c", "statc", *options)
        assert result.exit_code == 2, result.output
        assert "Did you mean static?" in result.stderr


def test_memory_can_be_limited_and_downloads_forbidden(run, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    small = ("--device", "cpu", "--set", "video.short_side=64", "--sequence", "two")
    more = ("--max-memory", "3GB", "--offline", "-o", tmp_path / "out", *QUICK)
    result = run(*davis(tree, "--config", "rgb", "--config", "static", *small, *more))
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "rgb" / "two" / "run.json").read_text())
    assert record["settings"]["max_memory"] == 3 * 10**9
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    wrong = run(*davis(tree, "--config", "rgb", "--max-memory", "much", "-o", tmp_path / "no"))
    assert wrong.exit_code == 2
    assert "max_memory" in wrong.stderr


def test_memory_of_several_methods_is_not_shown_without_a_word(run, tree, tmp_path):
    for configs, told in ((["static"], False), (["static", "flow"], True)):
        given = [text for config in configs for text in ("--config", config)]
        result = run(*davis(tree, *given, "--sequence", "two", "-o", tmp_path / configs[-1], "--no-report"))
        assert result.exit_code == 0, result.output
        assert ("methods that ran earlier" in result.stderr) == told


def test_resume_adds_a_method_beside_the_first(run, tree, tmp_path):
    out = tmp_path / "out"
    given = ["--sequence", "two", "-o", out, *QUICK]
    assert run(*davis(tree, "--config", "static", *given)).exit_code == 0
    before = csv_files(out)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "two").iterdir()}
    result = run(*davis(tree, "--config", "static", "--config", "flow", *given, "--resume"))
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in (out / "two").iterdir()} == stamps != {}
    after = csv_files(out)
    assert {name: after[name] for name in before} == before != {}
    assert {path.parts[0] for path in map(Path, after.keys() - before.keys())} == {"flow"}
    names = [method["name"] for method in json.loads((out / "summary.json").read_text())["methods"]]
    assert names == ["static", "flow"]


def test_resume_with_a_method_less_refuses_to_drop_its_scores(run, tree, tmp_path):
    out = tmp_path / "out"
    given = ["--sequence", "two", "-o", out, *QUICK]
    configs = ["--config", "static", "--config", "flow"]
    assert run(*davis(tree, *configs, "--config", "rgb", "--set", "video.short_side=64", *given)).exit_code == 0
    before = csv_files(out)
    result = run(*davis(tree, *configs, *given, "--resume"))
    assert result.exit_code == 2
    assert "holds the scores of rgb" in result.stderr
    assert "--overwrite" in result.stderr
    assert csv_files(out) == before != {}


def test_resume_with_changed_settings(run, tree, tmp_path):
    out = tmp_path / "out"
    arguments = davis(tree, "--config", "rgb", "--device", "cpu", "--set", "video.short_side=64", "-o", out, *QUICK)
    assert run(*arguments).exit_code == 0
    changed = run(*arguments, "--resume", "--set", "propagation.top_k=3")
    assert changed.exit_code == 2
    assert "propagation.top_k: 5 -> 3" in changed.stderr
    assert run(*arguments).exit_code == 2
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert run(*arguments, "--resume").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == stamps
    assert run(*arguments, "--overwrite", "--set", "propagation.top_k=3").exit_code == 0
    record = json.loads((out / "one" / "run.json").read_text())
    assert record["settings"]["propagation.top_k"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config", "nope"], 2, "no such preset"),
        (["--config", "static", "--config", "static"], 2, "given twice"),
        (["--sequence", "three"], 2, "--sequence three"),
        (["--resolution", "1080p"], 3, "1080p"),
        (["--config", "rgb", "--device", "cuda:99"], 2, "cuda:99"),
        (["--config", "static", "--resume", "--overwrite"], 2, "do not go together"),
        (["--results", "nowhere"], 3, "there is no such folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(run, tree, tmp_path, arguments, code, message):
    result = run(*davis(tree, "-o", tmp_path / "new" / "out", *arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("finished", "message"), [(0, "nothing was written"), (1, "1 of 2 clips are finished and stay")]
)
def test_an_interrupt_says_how_to_go_on(run, tree, tmp_path, monkeypatch, finished, message):
    whole = evaluation.run

    def interrupted(benchmark, tasks, **options):
        whole(benchmark, tasks[:finished], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "run", interrupted)
    result = run(*davis(tree, "--config", "static", "-o", tmp_path / "out"))
    assert result.exit_code == 130
    assert message in result.stderr
    assert ("--resume" in result.stderr) == (tmp_path / "out").exists() == bool(finished)


@pytest.mark.parametrize(
    ("place", "name", "message"),
    [
        (evaluation, "score", "All 2 clips are finished and stay"),
        (clips, "write_tables", "All 2 clips are finished and stay"),
        (report, "write_report", "The scores are in "),
    ],
)
def test_an_interrupt_after_the_clips_says_what_is_there(run, tree, tmp_path, monkeypatch, place, name, message):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupted)
        result = run(*davis(tree, "--config", "static", "-o", out))
    assert result.exit_code == 130
    assert message in result.stderr
    assert "--resume" in result.stderr
    assert "nothing was written" not in result.stderr
    assert len(list(out.rglob("run.json"))) == 2
    assert (out / "summary.json").exists() == (name == "write_report")
    result = run(*davis(tree, "--config", "static", "-o", out, "--resume"))
    assert result.exit_code == 0, result.output
    assert "2 clips are finished already" in result.stderr
    assert (out / "report.html").is_file()


def test_an_interrupt_beside_other_files_does_not_say_that_nothing_was_written(run, tree, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    monkeypatch.setattr(evaluation, "run", interrupted)
    result = run(*davis(tree, "--config", "static", "-o", out, "--overwrite"))
    assert result.exit_code == 130
    assert f"{out} holds none of this run" in " ".join(result.stderr.split())


def test_a_manifest_that_leads_out_of_the_folder_is_refused(run, tree, tmp_path):
    out = tmp_path / "out"
    assert run(*davis(tree, "--config", "static", "-o", out, *QUICK)).exit_code == 0
    (tmp_path / "victim.txt").write_text("theirs")
    manifest = out / ".evaluation.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"files": ["../victim.txt"]}))
    before = sorted(tmp_path.rglob("*"))
    for flag in ("--overwrite", "--resume"):
        result = run(*davis(tree, "--config", "static", "-o", out, flag, *QUICK))
        assert result.exit_code == 3
        assert "'../victim.txt' is not a plain name inside the folder" in " ".join(result.stderr.split())
        assert "Nothing was removed" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_clips_of_other_versions_are_kept_and_told(run, tree, tmp_path):
    out = tmp_path / "out"
    given = davis(tree, "--config", "static", "-o", out, "--no-report")
    assert run(*given).exit_code == 0
    assert "were made with" not in run(*given, "--resume").stderr
    path = out / "one" / "run.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "0.4.1"
    path.write_text(json.dumps(record))
    result = run(*given, "--resume")
    assert result.exit_code == 0
    assert "Finished clips were made with torch 0.4.1; now it is torch " in " ".join(result.stderr.split())


def test_a_figure_of_somebody_else_is_not_replaced(run, tree, tmp_path):
    out = tmp_path / "out"
    (out / "plots").mkdir(parents=True)
    (out / "plots" / "sequences.png").write_text("theirs")
    result = run(*davis(tree, "--config", "static", "-o", out, "--overwrite"))
    assert result.exit_code == 2
    assert "did not write: plots/sequences.png" in " ".join(result.stderr.split())
    assert (out / "plots" / "sequences.png").read_text() == "theirs"


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_that_was_stopped_gives_the_same_scores_when_it_is_resumed(run, tmp_path, stop, code):
    tree = make_tree(tmp_path / "davis", one=8, two=LONG)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = ["--config", "rgb", "--device", "cpu", "--set", "video.short_side=64", "--threads", "1", *QUICK]
    arguments = [sys.executable, "-m", "propagate", *davis(tree, *settings, "-o", stopped)]
    process = subprocess.Popen(
        [str(a) for a in arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # a shell's background job, these tests run as one, ignores the interrupt, and so do its children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    # in the middle of the second clip
    while process.poll() is None and len(list(stopped.glob(".two.unfinished.*/*.png"))) < 3:
        time.sleep(0.01)
    process.send_signal(stop)
    assert process.wait(timeout=60) == code
    assert (stopped / "one" / "run.json").is_file()
    assert not (stopped / "two").exists()
    assert bool(list(stopped.glob(".two.*"))) == (stop == signal.SIGKILL)
    assert csv_files(stopped) == {}

    assert run(*davis(tree, *settings, "-o", stopped, "--resume")).exit_code == 0
    assert run(*davis(tree, *settings, "-o", whole)).exit_code == 0
    assert len(csv_files(whole)) == 3
    assert csv_files(stopped) == csv_files(whole)
    assert not list(stopped.glob(".two.*"))
    masks = sorted(path.relative_to(whole) for path in whole.rglob("*.png"))
    assert len(masks) == 8 + LONG
    assert all((stopped / path).read_bytes() == (whole / path).read_bytes() for path in masks)


def test_jobs_do_not_change_a_byte(run, tree, tmp_path):
    settings = ["--config", "rgb", "--device", "cpu", "--set", "video.short_side=64", "--threads", "1", *QUICK]
    for jobs in ("1", "2"):
        result = run(*davis(tree, *settings, "-o", tmp_path / jobs, "--jobs", jobs))
        assert result.exit_code == 0, result.output
    assert csv_files(tmp_path / "1") == csv_files(tmp_path / "2") != {}


@pytest.mark.parametrize("command", ["davis", "jhmdb", "badja"])
def test_help_is_grouped_and_says_the_defaults(run, command):
    result = run("evaluate", command, "--help")
    assert result.exit_code == 0
    groups = ["Data set", "Settings", "Running", "Output", "Messages"]
    assert [group for group in groups if f" {group} " in result.output] == groups
    assert "[default: compact]" in " ".join(result.output.replace("│", "").split())


def test_published_rows_stand_below_and_say_that_they_were_not_run(tmp_path):
    squares = make_squares(tmp_path / "data")
    printed = io.StringIO()
    terminal = Terminal()
    terminal.out = Console(file=printed, width=200)
    choices = Choices(Running(threads=1), Weights(), ["static"], output=tmp_path / "out", no_report=True)
    assert evaluation.evaluate(terminal, squares, choices) == 0
    rows = [line.strip() for line in printed.getvalue().splitlines()]
    static = next(number for number, row in enumerate(rows) if row.startswith("static"))
    total = squares.score(tmp_path / "out").totals["J"]
    assert rows[static].split()[1] == f"{100 * total:.1f}"
    assert rows[static + 1].split() == ["Theirs", "(published,", "not", "run", "here)", "50.0", "-", "-"]


def test_help_imports_nothing_heavy():
    script = HELP.format(arguments=["evaluate", "davis", "--help"]).replace('"torch"', '"torch", "matplotlib"')
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--year" in done.stdout


def test_weights_are_fetched_once_before_processes_start(run, tree, tmp_path, monkeypatch):
    content = (PARITY_DATA / "vit_tiny_0" / "dino_original_state_dict.pth").read_bytes()
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_) -> None:
            pass

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv(CONSENT, "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    out = tmp_path / "out"
    out.mkdir()
    config = tmp_path / "mine.yaml"
    config.write_text("features: {name: dino, head_channels: 16}\nvideo: {short_side: 64}\n")
    command = davis(
        tree, "--config", config, "--device", "cpu", "--jobs", "2", "--threads", "1", "-o", out, "--no-report"
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        name = "dino-vits16"
        entry = MODELS[name]
        source = replace(entry.sources[0], url=f"http://127.0.0.1:{server.server_port}/weights")
        monkeypatch.setitem(MODELS, name, replace(entry, sources=(source,)))  # here; processes find the file
        refused = run(*command)
        assert refused.exit_code == 4
        assert "nothing is downloaded unasked" in refused.stderr
        assert (requests, list(out.iterdir())) == ([], [])
        result = run(*command, "--yes")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        huggingface_hub.close_session()
    assert result.exit_code == 0, result.output
    assert requests == ["/weights"]
