"""Growth of time and memory with the length of the clip and the number of objects: `python -m measurements.scaling`.

Draws docs/images/scaling.png: time per frame over clip length and over number of objects, and peak memory over length.
Each point is a new process that runs generated clips from file to files like `propagate segment`. Times are the CPU
time of all threads, which other programs disturb less, and the wall clock: the median and range of the runs.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from measurements.common import parser_of
from propagate.app.bench.benching import segment_files
from propagate.app.running.own_process import in_own_process
from propagate.benchmarks.report.plots import COLORS, draw_grid, save_png
from propagate.benchmarks.running.resources import machine, peak_memory, reset_peak_memory
from propagate.benchmarks.speed.generated_clip import generate_clip
from propagate.benchmarks.speed.stage_times import Subject, end_to_end
from propagate.benchmarks.speed.timing import Timing
from propagate.features import build_extractor
from propagate.settings import load_settings
from propagate.video import open_video

LENGTHS, OBJECTS = (50, 100, 200, 400), (1, 2, 5, 10, 20)
LENGTH_FOR_OBJECTS = 60
HEIGHT, WIDTH = 180, 320


@dataclass(frozen=True)
class Point:
    """Runs of one clip in one process."""

    frames: int
    objects: int
    timings: tuple[Timing, ...]
    peak: int


def measure(config: str, frames: int, objects: int, repeats: int, _on_frame: Callable[[], None]) -> Point:
    settings = load_settings(config, [f"video.short_side={HEIGHT}", "features.device=cpu"])
    subject = Subject(config, settings, build_extractor(settings.features.name, **settings.features.options))
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name, "clip.mp4")
        label = generate_clip(clip, frames=frames, size=(HEIGHT, WIDTH), objects=objects)

        def run(until: int) -> Timing:
            folder = Path(tempfile.mkdtemp(dir=name))
            return end_to_end(open_video(clip, to_frame=until), label, subject, folder, segment_files(settings))

        run(min(frames, 10))
        reset_peak_memory()
        timings = tuple(run(frames) for _ in range(repeats))
    return Point(frames, objects, timings, peak_memory() or 0)


def time_panel(axes: Axes, places: Sequence[int], points: Sequence[Point], title: str, what: str) -> None:
    for number, (name, clock) in enumerate({"CPU": "cpu", "wall clock": "wall"}.items()):
        values = [[1000 * getattr(timing, clock) for timing in point.timings] for point in points]
        middle = [statistics.median(runs) for runs in values]
        spread = [
            [m - min(runs) for m, runs in zip(middle, values, strict=True)],
            [max(runs) - m for m, runs in zip(middle, values, strict=True)],
        ]
        style = {"linewidth": 2.2} if number == 0 else {"linewidth": 1, "linestyle": "--", "alpha": 0.7}
        axes.errorbar(places, middle, spread, marker="o", color=COLORS[number], capsize=3, label=name, **style)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(what)
    axes.set_ylabel("milliseconds per frame")
    axes.legend(frameon=False)
    finish(axes, places)


def finish(axes: Axes, places: Sequence[int]) -> None:
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xticks(places)
    draw_grid(axes)


def growth(points: Sequence[Point]) -> str:
    first, last = (statistics.median(timing.cpu for timing in point.timings) for point in (points[0], points[-1]))
    return f"{last / first:.2f}"


def draw(config: str, by_length: Sequence[Point], by_objects: Sequence[Point], repeats: int) -> Figure:
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    time_axes, object_axes, memory_axes = figure.subplots(1, 3)
    longer = f"longer clips (1 object)\n{LENGTHS[-1]} frames against {LENGTHS[0]}:"
    time_panel(time_axes, LENGTHS, by_length, f"{longer} {growth(by_length)} times the CPU", "frames in the clip")
    more = f"more objects ({LENGTH_FOR_OBJECTS} frames)\n{OBJECTS[-1]} against 1:"
    time_panel(object_axes, OBJECTS, by_objects, f"{more} {growth(by_objects)} times the CPU", "objects")
    peaks = [point.peak / 2**20 for point in by_length]
    memory_axes.plot(LENGTHS, peaks, marker="o", color=COLORS[2], linewidth=2.2)
    memory_axes.set_title(f"{longer} {peaks[-1] / peaks[0]:.2f} times the memory", fontsize=11)
    memory_axes.set_xlabel("frames in the clip")
    memory_axes.set_ylabel("peak memory of the process, MiB")
    finish(memory_axes, LENGTHS)
    memory_axes.set_ylim(0, 1.25 * max(peaks))
    here = machine()
    figure.suptitle(
        f"{config}, {WIDTH}x{HEIGHT} at full size, file to files; {here['processor']}, {here['threads']} of "
        f"{here['cores']} threads, load {here['load_average']}; median and range of {repeats} runs",
        fontsize=11,
    )
    return figure


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--config", default="rgb")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs" / "images" / "scaling.png")
    options = parser.parse_args()

    def point(frames: int, objects: int) -> Point:
        found = in_own_process(partial(measure, options.config, frames, objects, options.repeats), lambda: None)
        cpu, wall = ([1000 * getattr(t, clock) for t in found.timings] for clock in ("cpu", "wall"))
        print(
            f"{frames} frames, {objects} objects: CPU {statistics.median(cpu):.1f} ms, wall "
            f"{statistics.median(wall):.1f} ms per frame, peak {math.ceil(found.peak / 2**20)} MiB",
            flush=True,
        )
        return found

    by_length = [point(frames, 1) for frames in LENGTHS]
    by_objects = [point(LENGTH_FOR_OBJECTS, objects) for objects in OBJECTS]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    print(save_png(draw(options.config, by_length, by_objects, options.repeats), options.output))


if __name__ == "__main__":
    main()
