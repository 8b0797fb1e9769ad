"""The transfer step compared with the dense formulation: `python -m measurements.transfer [--repeats 5] ...`.

For the settings of `compact`, twice its channels, and Stable Diffusion: the same tensors and process, in turns; the
median wall clock and CPU time (of all threads, which other programs disturb less) of each way, and their ratios. The
dense way is that of the published scripts: all scores of all context frames, exp, window mask, top-k threshold, one
large product. `torch` is the tiled way without compiled code. One frame of the memory is new at each step, as in a
video. Peak memory is that of a fresh process per way, less its memory before the step.

With `--device cuda` the memory is in half precision, as recommended for GPUs, and the ways are `triton` (the fused
kernel), `torch` and `dense`; times include the GPU's work, and memory is the GPU's, as torch's allocator counts it.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from measurements.common import parser_of
from propagate.benchmarks.running import resources
from propagate.benchmarks.speed.timing import Timing, synchronize, timed
from propagate.benchmarks.speed.transfer_step import Transfer
from propagate.propagation.affinity import normalize
from propagate.propagation.cuda import transfer as affinity_triton
from propagate.propagation.torch import transfer as torch_backend
from propagate.propagation.window import Rule, Window


class Setting(NamedTuple):
    """Channels and options of a step."""

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
    """Return a step per way; the first way is the program's own choice for such tensors."""
    generator = torch.Generator().manual_seed(0)
    query = normalize(torch.randn(setting.channels, *grid, generator=generator)).to(device)
    keys = normalize(torch.randn(frames, setting.channels, *grid, generator=generator))
    labels = torch.rand(frames, 2, *grid, generator=generator).to(device)
    keys = keys.to(device, memory_format=torch.channels_last)
    rule = Rule(Window("square", setting.radius), setting.top_k, setting.temperature)
    if device.type == "cuda":
        keys = keys.half()
        assert affinity_triton.can_transfer(query, keys, labels, rule), "Triton does not run here"
    step = Transfer(query, keys, labels, rule)
    ways = (step.ours, lambda: torch_backend.transfer(query, keys, labels, rule), step.dense)
    return dict(zip(WAYS[device.type], ways, strict=True))


def peak_memory(way: str, setting: Setting, frames: int, grid: tuple[int, int], device: torch.device) -> float:
    """Return the MiB by which a step raises the peak of a fresh process, after a tiny step."""
    steps(setting, frames, (4, 4), device)[way]()
    step = steps(setting, frames, grid, device)[way]
    peak = resources.peak_device_memory if device.type == "cuda" else resources.peak_memory
    synchronize(device)
    resources.reset_peak_memory()
    before = peak()
    step()
    return ((peak() or 0) - (before or 0)) / 2**20


def compare(
    name: str, setting: Setting, frames: int, grid: tuple[int, int], repeats: int, device: torch.device
) -> None:
    names = WAYS[device.type]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {way: pool.apply(peak_memory, (way, setting, frames, grid, device)) for way in names}
    ways = steps(setting, frames, grid, device)
    difference = (ways[names[0]]() - ways["dense"]()).abs().amax(0)
    timings: dict[str, list[Timing]] = {way: [] for way in names}
    for _ in range(repeats + 1):
        for way, step in ways.items():
            with timed(1, device, timings[way]):
                step()
    # the first run compiles kernels and allocates memory
    seconds = {way: statistics.median(timing.wall for timing in timings[way][1:]) for way in names}
    cpu = {way: statistics.median(timing.cpu for timing in timings[way][1:]) for way in names}
    print(f"{name}: {setting.channels} channels, radius {setting.radius}, top {setting.top_k}")
    for way in names:
        print(
            f"  {way}: {seconds[way] * 1000:.3f} ms (CPU {cpu[way] * 1000:.3f} ms), {memory[way]:.0f} MiB; dense takes "
            f"{seconds['dense'] / seconds[way]:.1f} times as long (CPU {cpu['dense'] / cpu[way]:.1f}) and "
            f"{memory['dense'] / max(memory[way], 0.1):.0f} times the memory"
        )
    # where the k-th best key nearly equals the next, ways with different rounding select different keys
    print(
        f"  largest difference of labels: {difference.max():.1e}, more than 1e-5 in "
        f"{(difference > 1e-5).float().mean():.2%} of the cells; "
        + (torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads")
    )


def main() -> None:
    parser = parser_of(__doc__)
    for name, default in [("frames", 8), ("rows", 60), ("columns", 104), ("repeats", 5)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--setting", choices=SETTINGS, help="only this setting")
    parser.add_argument("--device", choices=WAYS, default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    for name, setting in SETTINGS.items():
        if options.setting in (None, name):
            compare(name, setting, options.frames, (options.rows, options.columns), options.repeats, device)


if __name__ == "__main__":
    main()
