"""Time of J and F per frame and object on one core: `python -m measurements.metrics [FILE.npz ...] [--repeats 3]`.

A file holds `truth` and `prediction` (frames, H, W) with object ids, and `objects`, the ids to score; the default is
480x854 masks of `tests/parity/data`. Times are CPU times of one thread, so other load has little effect.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy import ndarray

from measurements.common import parser_of
from propagate.metrics import boundary_accuracy, region_similarity

DATA = Path(__file__).parents[1] / "tests" / "parity" / "data"
METRICS: dict[str, Callable[[ndarray, ndarray], float]] = {"J": region_similarity, "F": boundary_accuracy}


def milliseconds(metric: Callable[[ndarray, ndarray], float], truth: ndarray, prediction: ndarray) -> float:
    start = time.thread_time()
    metric(truth, prediction)
    return 1e3 * (time.thread_time() - start)


def main() -> None:
    parser = parser_of(__doc__)
    default = [DATA / "davis_metrics_0.npz", DATA / "davis_metrics_1.npz"]
    parser.add_argument("files", nargs="*", type=Path, default=default, metavar="FILE.npz")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for path in options.files:
        with np.load(path) as stored:
            truth, prediction, objects = stored["truth"], stored["prediction"], stored["objects"]
        pairs = [(t == number, p == number) for t, p in zip(truth, prediction, strict=True) for number in objects]
        frames, height, width = truth.shape
        print(f"{path.name}: {frames} frames of {height}x{width}, {len(objects)} objects")
        for name, metric in METRICS.items():
            times = [milliseconds(metric, *pair) for _ in range(options.repeats) for pair in pairs]
            print(
                f"  {name}: median {statistics.median(times):.2f} ms per frame and object, longest {max(times):.2f} ms"
            )


if __name__ == "__main__":
    main()
