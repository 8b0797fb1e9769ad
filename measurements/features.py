"""Features by batch size, and compiled: `OMP_NUM_THREADS=1 python -m measurements.features [--compile] ...`.

One process runs all variants in turns on the same random pictures, and prints the median CPU time per frame (of all
threads, which other programs disturb less) and wall clock. On a GPU only the wall clock is meaningful.

Batches are compared with single frames. `--compile` compares `features.compile` one frame at a time: time to compile
with the first frame, and the smallest cosine of any cell with its uncompiled feature.
"""

from __future__ import annotations

import json
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor

from measurements.common import parser_of
from propagate.benchmarks.speed.timing import Timing, timed
from propagate.features import FeatureExtractor, build_extractor


def take(extractor: FeatureExtractor, images: Tensor, batch: int, timings: list[Timing]) -> Tensor:
    """Return the features of all pictures, in batches; append the time per picture."""
    with torch.no_grad(), timed(len(images), getattr(extractor, "device", None), timings):
        return torch.cat([extractor(part) for part in images.split(batch)])


def summary(timings: list[Timing]) -> str:
    return (
        f"{statistics.median(t.cpu for t in timings):.3f} CPU s, {statistics.median(t.wall for t in timings):.3f} s "
        f"({min(t.wall for t in timings):.3f} to {max(t.wall for t in timings):.3f})"
    )


def smallest_cosine(ours: Tensor, theirs: Tensor) -> float:
    return float(F.cosine_similarity(ours.float(), theirs.float(), dim=1).min())


def batches(extractor: FeatureExtractor, images: Tensor, sizes: list[int], repeats: int) -> None:
    timings: dict[int, list[Timing]] = {size: [] for size in sizes}
    alone = take(extractor, images, 1, [])
    for _ in range(repeats):
        for size in sizes:
            features = take(extractor, images, size, timings[size])
            assert smallest_cosine(features, alone) > 0.999
    for size in sizes:
        print(f"batch {size}: {summary(timings[size])} per frame")


def compiled(name: str, options: dict[str, object], images: Tensor, repeats: int) -> None:
    ways = {False: build_extractor(name, **options), True: build_extractor(name, **options, compile=True)}
    first: list[Timing] = []
    joined, eager = take(ways[True], images[:1], 1, first), take(ways[False], images[:1], 1, [])
    print(f"compiled: the first frame {first[0].wall:.0f} s, {first[0].cpu:.0f} CPU s (without processes of compilers)")
    print(f"smallest cosine with eager: {smallest_cosine(joined, eager):.7f}")
    timings: dict[bool, list[Timing]] = {False: [], True: []}
    for _ in range(repeats):
        for way, extractor in ways.items():
            take(extractor, images[:2], 1, timings[way])
    for way, name_of_way in ((False, "eager"), (True, "compiled")):
        print(f"{name_of_way}: {summary(timings[way])} per frame")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--name", default="compact", help="extractor")
    parser.add_argument("--options", type=json.loads, default={}, help='options, such as \'{"dtype": "float32"}\'')
    parser.add_argument("--size", type=int, nargs=2, default=[480, 832], help="rows and columns of a picture")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also compare features.compile")
    options = parser.parse_args()
    images = torch.rand(options.frames, 3, *options.size, generator=torch.Generator().manual_seed(0))
    extractor = build_extractor(options.name, **options.options)
    print(f"{options.name} {getattr(extractor, 'dtype', '')}, {options.size}, {torch.get_num_threads()} threads")
    if options.batches:
        batches(extractor, images, options.batches, options.repeats)
    if options.compile:
        compiled(options.name, options.options, images, options.repeats)


if __name__ == "__main__":
    main()
