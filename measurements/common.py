"""Parts that several measurements share: the cost of one frame, rows in processes of their own, and DAVIS clips."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from propagate.benchmarks.speed.timing import Timing, timed
from propagate.formats import read_indexed_png
from propagate.geometry import resize_frame, to_tensor, working_size
from propagate.metrics import boundary_accuracy, region_similarity
from propagate.settings import Settings
from propagate.types import Frame, Mask
from propagate.video import open_video

T = TypeVar("T")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def measure_frame(work: Callable[[], T], device: str) -> tuple[T, Timing, int]:
    """Return the result, time and peak bytes of `work`, after a warm-up on a GPU."""
    if device != "cpu":
        work()
    timings: list[Timing] = []
    with timed(1, torch.device(device), timings):
        result = work()
    if device == "cpu":
        return result, timings[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result, timings[0], torch.cuda.max_memory_allocated(device)


def run_row(module: str, row: str, pipeline: str, device: str) -> dict[str, float]:
    """Run `python -m module --row ROW` in a new process and return the JSON that it prints."""
    command = [sys.executable, "-m", module, "--row", row, "--pipeline", pipeline, "--device", device]
    environment = os.environ | {"XDG_CACHE_HOME": pipeline}
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    )
    return found


def add_davis_options(parser: argparse.ArgumentParser, frames: int, sequences: str) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--sequence", action="append", help=f"default: {sequences}")
    parser.add_argument("--frames", type=int, default=frames, help="use the first frames of each sequence")


def read_truth(data: Path, name: str, frames: int) -> list[Mask]:
    """Read the first masks of a sequence, with all objects as one."""
    paths = sorted((data / "Annotations/480p" / name).glob("*.png"))[:frames]
    return [Mask((read_indexed_png(path).ids > 0).astype(np.uint8)) for path in paths]


def read_images(
    data: Path, name: str, frames: int, extractor: Any, settings: Settings
) -> Iterator[tuple[Frame, Tensor]]:
    """Yield the first frames of a sequence with their (3, h, w) images at the working size."""
    for frame in open_video(data / "JPEGImages/480p" / name, to_frame=frames):
        size = working_size(frame.size, multiple=extractor.multiple, **settings.video.sizing)
        yield frame, to_tensor(resize_frame(frame.pixels, size))


def j_and_f(truth: Mask, predicted: Mask) -> float:
    pair = truth.ids > 0, predicted.ids > 0
    return (region_similarity(*pair) + boundary_accuracy(*pair)) / 2
