"""The transfer step against the dense formulation: `python -m measurements.transfer [--repeats 5] [--rows 60] ...`.

For the settings of `compact`, twice its channels, and Stable Diffusion: the same tensors, the same process, taken in
turns; the median of each way's wall clock and of its CPU time (of all threads together, which other programs disturb
less), and their ratios. The dense way is that of the published scripts: all scores of all context frames, exp, window
mask, top-k threshold, one large product. `torch` is the tiled way without compiled code. One frame of the memory is new
at each step, as in a video. Peak memory is that of a fresh process per way, less what it held before the step.

With `--device cuda` the memory is in half precision, as on a GPU it should be, and the ways are `triton` (the fused
kernel), `torch` and `dense`; the clock waits for the GPU, and the memory is the GPU's, as torch's allocator counts it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from propagate.benchmarks.speed.timing import synchronize
from propagate.benchmarks.speed.transfer_step import Kept
from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.cuda import transfer as affinity_triton
from propagate.propagation.dense import dense_transfer
from propagate.propagation.torch import transfer as torch_backend
from propagate.propagation.window import Rule, Window


class Setting(NamedTuple):
    """What the cost depends on, beside the grid."""

    channels: int
    radius: int
    top_k: int
    temperature: float


SETTINGS = {
    "compact": Setting(64, 12, 5, 0.1),
    "128 channels": Setting(128, 12, 5, 0.1),
    "Stable Diffusion": Setting(640, 15, 15, 0.2),
}
WAYS = {"cpu": ("tiled", "torch", "dense"), "cuda": ("triton", "torch", "dense")}


def steps(
    setting: Setting, frames: int, grid: tuple[int, int], device: torch.device
) -> dict[str, Callable[[], Tensor]]:
    """The first of the ways is the program's own choice for such tensors."""
    generator = torch.Generator().manual_seed(0)
    query = normalize(torch.randn(setting.channels, *grid, generator=generator))
    keys = normalize(torch.randn(frames, setting.channels, *grid, generator=generator))
    labels = torch.rand(frames, 2, *grid, generator=generator).to(device)
    query, keys = query.to(device), keys.to(device, memory_format=torch.channels_last)
    rule = Rule(Window("square", setting.radius), setting.top_k, setting.temperature)
    if device.type == "cuda":
        keys = keys.half()
        assert affinity_triton.can_transfer(query, keys, labels, rule), "Triton does not run here"
    common: dict[str, Any] = {"top_k": setting.top_k, "temperature": setting.temperature}
    window, kept = rule.window, Kept()
    return {
        WAYS[device.type][0]: lambda: propagate_labels(
            query, keys, labels, window=window, **common, **kept.next(frames)
        ),
        "torch": lambda: torch_backend.transfer(query, keys, labels, rule),
        "dense": lambda: dense_transfer(query, keys, labels, window=window, **common),
    }


def peak_memory(way: str, setting: Setting, frames: int, grid: tuple[int, int], device: torch.device) -> float:
    """MiB by which one step raises the peak of a fresh process that has done a tiny one before."""
    steps(setting, frames, (4, 4), device)[way]()
    step = steps(setting, frames, grid, device)[way]
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # making the tensors took more for a while: forget that peak
    before = resident("VmRSS")
    step()
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    """KiB that this process holds now (VmRSS) or has held at most (VmHWM); Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def compare(
    name: str, setting: Setting, frames: int, grid: tuple[int, int], repeats: int, device: torch.device
) -> None:
    names = WAYS[device.type]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {way: pool.apply(peak_memory, (way, setting, frames, grid, device)) for way in names}
    ways = steps(setting, frames, grid, device)
    difference = (ways[names[0]]() - ways["dense"]()).abs().amax(0)
    wall: dict[str, list[float]] = {way: [] for way in names}
    busy: dict[str, list[float]] = {way: [] for way in names}
    for repeat in range(repeats + 1):
        for way, step in ways.items():
            synchronize(device)
            start, start_busy = time.perf_counter(), time.process_time()
            step()
            synchronize(device)
            if repeat:  # in the first, kernels are compiled and memory is taken
                wall[way].append(time.perf_counter() - start)
                busy[way].append(time.process_time() - start_busy)
    seconds = {way: statistics.median(values) for way, values in wall.items()}
    cpu = {way: statistics.median(values) for way, values in busy.items()}
    print(f"{name}: {setting.channels} channels, radius {setting.radius}, top {setting.top_k}")
    for way in names:
        print(
            f"  {way}: {seconds[way] * 1000:.3f} ms (CPU {cpu[way] * 1000:.3f} ms), {memory[way]:.0f} MiB; dense takes "
            f"{seconds['dense'] / seconds[way]:.1f} times as long (CPU {cpu['dense'] / cpu[way]:.1f}) and "
            f"{memory['dense'] / max(memory[way], 0.1):.0f} times the memory"
        )
    # where the k-th best key and the next are as good as the same, ways that round otherwise choose otherwise
    print(
        f"  largest difference of labels: {difference.max():.1e}, more than 1e-5 in "
        f"{(difference > 1e-5).float().mean():.2%} of the cells; "
        + (torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("frames", 8), ("rows", 60), ("columns", 104), ("repeats", 5)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--setting", choices=SETTINGS, help="only this one")
    parser.add_argument("--device", choices=WAYS, default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    for name, setting in SETTINGS.items():
        if options.setting in (None, name):
            compare(name, setting, options.frames, (options.rows, options.columns), options.repeats, device)


if __name__ == "__main__":
    main()
