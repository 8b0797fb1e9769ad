"""The transfer step against the dense formulation: `python -m benchmarks.transfer [--channels 128] [--radius 12] ...`.

Same tensors, same process, taken in turns; the median of each and their ratio. The dense way is that of the published
scripts: all scores of all context frames, exp, window mask, top-k threshold, one large product. Peak memory is that of
a fresh process per way, less what it held before the step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from propagate.affinity import Window, normalize, propagate_labels


def dense(query: Tensor, keys: Tensor, labels: Tensor, *, radius: int, top_k: int, temperature: float) -> Tensor:
    """Every query against every key of every context frame."""
    frames, _, height, width = keys.shape
    weights = torch.einsum("cq,ncp->qnp", query.flatten(1), keys.flatten(2)).div_(temperature).exp_()
    ys, xs = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    inside = ((ys[:, None] - ys).abs() <= radius) & ((xs[:, None] - xs).abs() <= radius)
    weights *= inside.unsqueeze(1)
    weights = weights.flatten(1)
    weights[weights < weights.topk(top_k).values[:, -1:]] = 0
    weights /= weights.sum(1, keepdim=True)
    return (weights @ labels.permute(0, 2, 3, 1).reshape(frames * height * width, -1)).T.reshape(-1, height, width)


def steps(options: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    grid = (options.rows, options.columns)
    query = normalize(torch.randn(options.channels, *grid, generator=generator))
    keys = normalize(torch.randn(options.frames, options.channels, *grid, generator=generator))
    keys = keys.to(memory_format=torch.channels_last)
    labels = torch.rand(options.frames, 2, *grid, generator=generator)
    common = {"top_k": options.top_k, "temperature": 0.1}
    window = Window("square", options.radius)
    return {
        "tiled": lambda: propagate_labels(query, keys, labels, window=window, **common),
        "dense": lambda: dense(query, keys, labels, radius=options.radius, **common),
    }


def peak_memory(way: str, options: argparse.Namespace) -> float:
    """MiB by which one step raises the peak of a fresh process."""
    step = steps(options)[way]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [
        ("channels", 128),
        ("frames", 8),
        ("radius", 12),
        ("top-k", 5),
        ("rows", 60),
        ("columns", 104),
        ("repeats", 5),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {way: pool.apply(peak_memory, (way, options)) for way in ("tiled", "dense")}
    ways = steps(options)
    difference = (ways["tiled"]() - ways["dense"]()).abs().max()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way, step in ways.items():
            start = time.perf_counter()
            step()
            seconds[way].append(time.perf_counter() - start)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    for way in ways:
        print(f"{way}: {median[way]:.3f} s, {memory[way]:.0f} MiB")
    print(
        f"{median['dense'] / median['tiled']:.1f} times faster, {memory['tiled'] / memory['dense']:.1%} of the memory"
    )
    print(f"largest difference of labels: {difference:.1e}; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
