"""The transfer step against the dense formulation: `python -m benchmarks.transfer [--repeats 5] [--rows 60] ...`.

For the settings of `compact` and of Stable Diffusion: the same tensors, the same process, taken in turns; the median of
each way's wall clock and of its CPU time (of all threads together, which other programs disturb less), and their
ratios. The dense way is that of the published scripts: all scores of all context frames, exp, window mask, top-k
threshold, one large product. `torch` is the tiled way without compiled code. Peak memory is that of a fresh process per
way, less what it held before the step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from propagate import affinity
from propagate.affinity import Window, normalize, propagate_labels
from propagate.dense import dense_transfer


class Setting(NamedTuple):
    """What the cost depends on, beside the grid."""

    channels: int
    radius: int
    top_k: int
    temperature: float


SETTINGS = {"compact": Setting(128, 12, 5, 0.1), "Stable Diffusion": Setting(640, 15, 15, 0.2)}
WAYS = ("tiled", "torch", "dense")


def steps(setting: Setting, frames: int, grid: tuple[int, int]) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    query = normalize(torch.randn(setting.channels, *grid, generator=generator))
    keys = normalize(torch.randn(frames, setting.channels, *grid, generator=generator))
    keys = keys.to(memory_format=torch.channels_last)
    labels = torch.rand(frames, 2, *grid, generator=generator)
    common = {"top_k": setting.top_k, "temperature": setting.temperature}
    window = Window("square", setting.radius)
    return {
        "tiled": lambda: propagate_labels(query, keys, labels, window=window, **common),
        "torch": lambda: affinity.transfer(query, keys, labels, window=window, ties="cut", tile_scores=None, **common),
        "dense": lambda: dense_transfer(query, keys, labels, window=window, **common),
    }


def peak_memory(way: str, setting: Setting, frames: int, grid: tuple[int, int]) -> float:
    """MiB by which one step raises the peak of a fresh process that has done a tiny one before."""
    steps(setting, frames, (4, 4))[way]()
    step = steps(setting, frames, grid)[way]
    Path("/proc/self/clear_refs").write_text("5")  # making the tensors took more for a while: forget that peak
    before = resident("VmRSS")
    step()
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    """KiB that this process holds now (VmRSS) or has held at most (VmHWM); Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def compare(name: str, setting: Setting, frames: int, grid: tuple[int, int], repeats: int) -> None:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {way: pool.apply(peak_memory, (way, setting, frames, grid)) for way in WAYS}
    ways = steps(setting, frames, grid)
    difference = (ways["tiled"]() - ways["dense"]()).abs().max()
    wall: dict[str, list[float]] = {way: [] for way in WAYS}
    busy: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, step in ways.items():
            start, start_busy = time.perf_counter(), time.process_time()
            step()
            wall[way].append(time.perf_counter() - start)
            busy[way].append(time.process_time() - start_busy)
    seconds = {way: statistics.median(values) for way, values in wall.items()}
    cpu = {way: statistics.median(values) for way, values in busy.items()}
    print(f"{name}: {setting.channels} channels, radius {setting.radius}, top {setting.top_k}")
    for way in WAYS:
        print(
            f"  {way}: {seconds[way]:.3f} s (CPU {cpu[way]:.3f} s), {memory[way]:.0f} MiB; dense takes "
            f"{seconds['dense'] / seconds[way]:.1f} times as long (CPU {cpu['dense'] / cpu[way]:.1f}) and "
            f"{memory['dense'] / memory[way]:.0f} times the memory"
        )
    print(f"  largest difference of labels: {difference:.1e}; {torch.get_num_threads()} threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("frames", 8), ("rows", 60), ("columns", 104), ("repeats", 5)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--setting", choices=SETTINGS, help="only this one")
    options = parser.parse_args()
    for name, setting in SETTINGS.items():
        if options.setting in (None, name):
            compare(name, setting, options.frames, (options.rows, options.columns), options.repeats)


if __name__ == "__main__":
    main()
