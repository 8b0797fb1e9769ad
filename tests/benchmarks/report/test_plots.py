from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from propagate.benchmarks.benchmark import Curve
from propagate.benchmarks.report.plots import (
    COLORS,
    frame_curves,
    heat_map,
    method_color,
    save_png,
    sequence_bars,
    value_line,
)
from propagate.errors import InputError


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_bars_stand_in_their_group_with_the_color_of_their_method():
    values = {"static": {"dog": 0.25, "swan": 0.5}, "flow": {"dog": 0.75, "swan": 1.0}}
    (axes,) = sequence_bars(values, ["dog", "swan"], "J&F").axes
    found = {
        (round(bar.get_x() + bar.get_width() / 2), bar.get_facecolor()[:3]): bar.get_height() for bar in axes.patches
    }
    blue, red = to_rgb(method_color(0)), to_rgb(method_color(1))
    assert found == {(0, blue): 0.25, (1, blue): 0.5, (0, red): 0.75, (1, red): 1.0}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["dog", "swan"]


def test_a_clip_without_a_score_has_no_bar():
    (axes,) = sequence_bars({"flow": {"dog": float("nan")}}, ["dog", "swan"], "J").axes
    assert not any(np.isfinite(bar.get_height()) for bar in axes.patches)


def test_many_clips_are_drawn_in_several_rows():
    clips = [f"clip{number}" for number in range(70)]
    figure = sequence_bars({"flow": dict.fromkeys(clips, 0.5)}, clips, "J")
    shown = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert len(shown) == 3
    assert [name for row in shown for name in row] == clips


def test_a_panel_for_each_target_and_metric_and_a_line_for_each_method():
    def curves(shift: float) -> list[Curve]:
        return [
            Curve("dog", target, (1, 2), {"J": np.array([0.5, shift]), "F": np.array([0.25, shift])})
            for target in ("1", "2")
        ]

    figure = frame_curves({"static": curves(0.1), "nothing": [], "flow": curves(0.2)})
    assert len(figure.axes) == 4
    assert [axes.get_title() for axes in figure.axes] == ["J", "F", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["object 1", "", "object 2", ""]
    lines = list(figure.axes[2].lines)
    assert [line.get_color() for line in lines] == [method_color(0), method_color(2)]
    np.testing.assert_array_equal(lines[1].get_ydata(), [0.5, 0.2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["static", "nothing", "flow"]


def test_few_frames_are_drawn_with_their_points():
    def marker(count: int) -> object:
        curve = Curve("dog", "joints", tuple(range(count)), {"PCK": np.full(count, 0.5)})
        return frame_curves({"flow": [curve]}).axes[0].lines[0].get_marker()

    assert marker(5) == "o"
    assert marker(90) != "o"


def test_methods_beyond_the_colors_are_told_apart_by_their_dashes():
    curve = Curve("dog", "1", (1, 2), {"J": np.array([0.5, 0.5])})
    lines = frame_curves({f"m{number}": [curve] for number in range(len(COLORS) + 1)}).axes[0].lines
    assert lines[0].get_color() == lines[-1].get_color()
    assert lines[0].get_linestyle() != lines[-1].get_linestyle()


def test_cells_of_the_heat_map_hold_their_value_in_per_cent_and_the_best_is_framed():
    values = np.array([[0.5, 0.612, float("nan")], [0.4, 0.301, 0.2]])
    figure = heat_map(values, ["a", "b"], ["1", "2", "3"], ("block", "timestep"), "J&F")
    axes = figure.axes[0]
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {
        (0, 0): "50.0", (0, 1): "61.2", (0, 2): "failed", (1, 0): "40.0", (1, 1): "30.1", (1, 2): "20.0",
    }  # fmt: skip
    (frame,) = axes.patches
    assert (frame.get_y(), frame.get_x()) == (-0.5, 0.5)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("block", "timestep")


@pytest.mark.parametrize("value", [0.3, float("nan")])
def test_a_heat_map_of_one_value_can_be_drawn(tmp_path, value):
    figure = heat_map(np.full((2, 2), value), ["a", "b"], ["1", "2"], ("block", "timestep"), "J")
    assert texts(figure) == ["failed" if np.isnan(value) else "30.0"] * 4
    assert save_png(figure, tmp_path / "map.png").is_file()


def test_points_of_the_line_hold_their_value_and_the_best_is_marked():
    figure = value_line(np.array([0.5, float("nan"), 0.75]), ["1", "2", "3"], "block", "J")
    assert texts(figure) == ["50.0", "failed", "75.0"]
    series, best = figure.axes[0].lines
    np.testing.assert_array_equal(series.get_ydata(), [0.5, np.nan, 0.75])
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2], [0.75])


def test_names_with_dollars_and_underscores_are_drawn_as_they_are(tmp_path):
    names = ["_hidden", "$x_1$", "a$b"]
    figure = sequence_bars({name: dict.fromkeys(names, 0.5) for name in names}, names, "$J")
    save_png(figure, tmp_path / "bars.png")
    labels = figure.legends[0].get_texts()
    assert [label.get_text() for label in labels] == names
    assert not any(label.get_parse_math() for label in [*labels, *figure.axes[0].get_xticklabels()])


def test_a_figure_is_a_whole_png_with_the_methods_color_and_the_same_bytes_twice(tmp_path):
    def write(name: str) -> bytes:
        figure = sequence_bars({"a": {"dog": 1.0}, "b": {"dog": 1.0}}, ["dog"], "J")
        return save_png(figure, tmp_path / name).read_bytes()

    assert write("a.png") == write("b.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    for number in (0, 1):
        distance = np.abs(pixels - np.array(to_rgb(method_color(number))) * 255).max(-1)
        assert (distance < 3).sum() > 1000


def test_a_figure_that_cannot_be_written_is_an_input_error(tmp_path):
    figure = value_line(np.array([0.5]), ["1"], "block", "J")
    with pytest.raises(InputError, match="nowhere"):
        save_png(figure, tmp_path / "nowhere" / "line.png")
