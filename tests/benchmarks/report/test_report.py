from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propagate.benchmarks.benchmark import Published
from propagate.benchmarks.report import report
from propagate.benchmarks.report.plots import method_color
from propagate.benchmarks.report.report import write_report
from propagate.errors import InputError
from tests.benchmarks.report.reporting import CLIPS, DIFFERENCE, FRAMES, PREDICTION, TRUTH, FlatPictures, method

COMMAND = "propagate evaluate flat --data 'my <data>' -o out"
LOW = method("low", {CLIPS[0]: 0.25, CLIPS[1]: 0.35})
HIGH = method("high", {CLIPS[0]: 0.875, CLIPS[1]: 0.625, CLIPS[2]: 0.55})
ONE = method("one", {CLIPS[0]: 0.5})
PUBLISHED = Published("DIFT", {"J&F": 0.757}, "Tang et al., NeurIPS 2023", "propagate evaluate flat --config dift")


def write(folder: Path, *results, benchmark: FlatPictures | None = None) -> str:
    files = write_report(benchmark or FlatPictures(), results, folder, {"torch": "2.6", "av": None}, COMMAND)
    assert files[0] == folder / "report.html"
    return files[0].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> str:
    """Two methods, of which the second is the better one, beside a published row."""
    return write(tmp_path_factory.mktemp("usual"), LOW, HIGH, benchmark=FlatPictures(published=(PUBLISHED,)))


def rows(page: str, *, section: str) -> list[list[str]]:
    """The texts of all table rows of a section."""
    part = page.partition(f'<section id="{section}">')[2].partition("</section>")[0]
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    ]


def pictures(page: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    ]


def test_methods_are_ranked_with_their_totals_in_per_cent(usual):
    found = rows(usual, section="results")
    assert found[0] == ["Method", "J&amp;F", "J-Mean", "frames/s", "memory, GiB"]
    assert found[2] == ["high", "68.3", "69.3", "12.5", "1.50"]
    assert found[3] == ["low2 of 3 clips", "30.0", "31.0", "12.5", "1.50"]


def test_what_was_not_measured_is_not_a_number(tmp_path):
    scores = replace(ONE.scores, totals={"J&F": float("nan")})
    unknown = replace(ONE, name="unknown", scores=scores, frames_per_second=None, peak_memory=None)
    assert rows(write(tmp_path, unknown, ONE), section="results")[3] == ["unknown1 of 3 clips", *["–"] * 4]


def test_a_method_that_lacks_clips_is_ranked_after_those_that_have_all(tmp_path):
    every = method("every", dict.fromkeys(CLIPS, 0.2))
    page = write(tmp_path, ONE, every, LOW)
    found = rows(page, section="results")
    assert [row[0] for row in found[2:5]] == ["every", "one1 of 3 clips", "low2 of 3 clips"]
    assert re.findall(r'<td class="rank">([\d.]+)<', page) == ["20.0"]
    assert "those with scores of all clips first" in page
    assert "those with scores of all clips first" not in write(tmp_path, every)


def test_memory_of_several_methods_says_what_it_includes(tmp_path):
    word = "methods that ran earlier"
    assert word in write(tmp_path, LOW, HIGH)
    assert word not in write(tmp_path, LOW, replace(HIGH, peak_memory=None))


def test_a_clip_that_failed_is_told_once(tmp_path):
    problems = {"swan": ("The folder does not exist.",), "dog": ("One is missing.",)}
    failing = replace(LOW, scores=replace(LOW.scores, problems=problems), failed={"swan": "Memory ran out."})
    page = write(tmp_path, failing)
    assert page.count("<li><b>swan:</b>") == 1
    assert "The folder does not exist." not in page
    assert "<li><b>dog:</b> One is missing.</li>" in page
    assert "problems in the results of 1 clip<" in page


def test_published_rows_are_marked_and_hold_only_what_was_published(usual):
    found = rows(usual, section="results")
    assert found[4] == ["Published, not run here: same data and protocol (Flat-1 val, semi-supervised)"]
    assert found[5] == ["DIFT", "75.7", "–", "–", "–"]
    (note,) = found[6]
    assert note.startswith("published, not run here; source: Tang et al., NeurIPS 2023")
    assert note.endswith("propagate evaluate flat --config dift")


def test_without_published_rows_there_is_no_word_of_them(tmp_path):
    assert "ublished, not run here" not in write(tmp_path, ONE)


def test_remarks_problems_and_failures_are_open_to_see(tmp_path):
    scores = replace(LOW.scores, problems={"dog": ("One is missing.",)}, remarks=("Coverage 83.2 %.", "All."))
    failing = replace(LOW, scores=scores, failed={"swan": "Memory ran out <here>."})
    other = replace(HIGH, scores=replace(HIGH.scores, remarks=("All.",)))
    page = write(tmp_path, failing, other, benchmark=FlatPictures(remarks=("A subset: 3 of 30 clips.",)))
    seen = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert "<li>A subset: 3 of 30 clips.</li>" in seen
    assert "<li><b>low:</b> Coverage 83.2 %.</li>" in seen
    assert "<li>All.</li>" in seen
    assert "<li><b>dog:</b> One is missing.</li>" in seen
    assert "<li><b>swan:</b> Memory ran out &lt;here&gt;.</li>" in seen


def test_clips_are_compared_and_the_best_is_bold(tmp_path):
    failing = replace(LOW, failed={CLIPS[2]: "Memory ran out."})
    page = write(tmp_path, failing, HIGH)
    table = rows(page, section="clips")
    assert table[:4] == [
        ["J&amp;F, %", "frames", "low", "high"],
        ["dog", "31", "25.0", "87.5"],
        ["swan", "31", "35.0", "62.5"],
        ["a b_$1&lt;i&gt;", "31", "failed", "55.0"],
    ]
    assert re.findall(r'<td class="best">([\d.]+)<', page) == ["87.5", "62.5", "55.0"]
    assert ["dog", "87.5", "88.5", "86.5"] in table  # of the folded table of every metric


def test_every_method_has_one_color_everywhere(usual):
    for number, name in enumerate(("low", "high")):
        colors = set(re.findall(rf'style="background:(#\w+)"></span>{name}<', usual))
        assert colors == {method_color(number)}


def test_worst_frames_stand_with_prediction_truth_and_difference(tmp_path):
    benchmark = FlatPictures()
    page = write(tmp_path, HIGH, benchmark=benchmark)
    # the dips of the three clips, then frames 20 away from the dip of the lowest clip, the first of equals
    last, swan = CLIPS[2], CLIPS[1]
    asked = [(clip, frame) for clip, _, frame in benchmark.asked]
    assert asked == [(last, 7), (swan, 7), ("dog", 7), (last, 27), (swan, 27)]
    assert {results for _, results, _ in benchmark.asked} == {Path("results/high")}
    assert "<b>dog</b>, frame 7: 43.8 %" in page
    assert "(J 44.8, F 42.8)" in page
    assert page.count("No pictures: swan/00007.png cannot be read.") == 2
    jpegs = [picture for picture in pictures(page) if picture.format == "JPEG"]
    assert len(jpegs) == 9
    assert {picture.size for picture in jpegs} == {(560, 42)}
    for picture, color in zip(jpegs, (PREDICTION, TRUTH, DIFFERENCE), strict=False):
        np.testing.assert_allclose(np.asarray(picture).mean((0, 1)), color, atol=3)


def test_the_colors_of_the_difference_are_explained(usual):
    shown = re.findall(r'class="swatch" style="background:(#\w+)"></span>([^<]*)<', usual)
    assert shown == [("#010203", "hit"), ("#fa8000", "missed")]


def test_settings_that_differ_come_first_and_all_are_there(usual):
    differing, _, full = usual.partition("All settings of")
    found = rows(differing + "</section>", section="settings")
    assert [row[0] for row in found] == ["Setting", "features.name"]
    assert found[1][1:] == ["lowpreset low", "highpreset high"]
    assert ["propagation.top_k", "5", "default"] in rows(usual, section="settings")
    assert "0123abcd" in full


def test_results_made_elsewhere_have_no_settings(tmp_path):
    page = write(tmp_path, replace(ONE, name="two", settings={}, origins={}, settings_hash=""), ONE)
    assert page.count("their settings are not known here") == 1


def test_versions_and_command_are_there(usual):
    assert ["torch", "2.6"] in rows(usual, section="origin")
    assert ["av", "not installed"] in rows(usual, section="origin")
    assert "&#39;my &lt;data&gt;&#39; -o out" in usual


def test_plots_lie_beside_the_page_and_in_it(tmp_path):
    benchmark = FlatPictures()
    files = write_report(benchmark, [HIGH], tmp_path / "new" / "out", {}, COMMAND)
    assert [str(path.relative_to(tmp_path / "new" / "out")) for path in files] == [
        "report.html",
        "plots/sequences.png",
        *(f"plots/frames-{name}.png" for name in CLIPS),
    ]
    page = files[0].read_text()
    inside = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert inside == [path.read_bytes() for path in files[1:]]


def test_of_too_many_clips_the_figures_of_the_worst_are_in_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", 1)
    page = write(tmp_path, HIGH)
    assert re.findall(r"<summary>(.*?)</summary>\s*<figure>", page) == ["a b_$1&lt;i&gt;"]
    assert "the figures of the 2 others are in plots/" in page
    assert len(list((tmp_path / "plots").glob("frames-*.png"))) == 3


def test_a_method_that_scored_nothing_is_shown_all_the_same(tmp_path):
    nothing = replace(
        LOW,
        scores=replace(LOW.scores, totals={}, clips={}, curves=()),
        failed=dict.fromkeys(CLIPS, "Memory ran out."),
    )
    page = write(tmp_path, nothing)
    assert "low: 3 clips failed" in page
    assert "No clip could be scored." in page
    assert "No frame was scored." in page
    assert not pictures(page)


def test_an_output_that_is_a_file_is_an_input_error(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write(tmp_path / "out", LOW)
    assert (tmp_path / "out").read_text() == "mine"


def test_nothing_in_the_page_points_outside(usual):
    assert "<script" not in usual
    links = re.findall(r'(?:src|href|action|data)="([^"]*)"', usual)
    assert len(links) > FRAMES // 2
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert "url(" not in usual
    assert "@import" not in usual


class _Requests(BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    _Requests.seen = []
    with HTTPServer(("127.0.0.1", 0), _Requests) as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def browser(tmp_path):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")

    def dom(page: Path) -> str:
        """The page as the browser has it once everything is loaded."""
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
            "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return dom


def test_a_browser_shows_the_numbers_and_every_picture_and_asks_the_network_for_nothing(tmp_path, server, browser):
    page = write(tmp_path, LOW, HIGH, benchmark=FlatPictures(published=(PUBLISHED,)))
    probe = f'<img src="http://127.0.0.1:{server.server_port}/probe"></body>'
    (tmp_path / "probed.html").write_text(page.replace("</body>", probe), encoding="utf-8")
    shown = browser(tmp_path / "probed.html")
    assert rows(shown, section="results") == rows(page, section="results")
    assert rows(shown, section="clips") == rows(page, section="clips")
    assert _Requests.seen == []  # the page's policy holds

    # without the policy, the same probe gets through, and a script can look at the pictures
    count = (
        "<script>onload = () => document.body.append('loaded ' + [...document.images].filter("
        "i => i.src.startsWith('data:') && i.naturalWidth > 0 && i.naturalHeight > 0).length)</script></body>"
    )
    free = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page).replace("</body>", probe)
    (tmp_path / "free.html").write_text(free.replace("</body>", count), encoding="utf-8")
    assert f"loaded {len(pictures(page))}" in browser(tmp_path / "free.html")
    assert _Requests.seen == ["/probe"]
