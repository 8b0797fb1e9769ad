"""What every training run does around its steps: options, a loss curve, checkpoints, and where it ends."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

MEAN_OF = 25  # steps per row of the loss curve


class Trained(Protocol):
    """Something that is trained step by step.

    Attributes:
        step: steps that have been made.
    """

    step: int

    def train_step(self, batch: Any) -> dict[str, float]:
        """One step on one batch; the losses by name."""
        ...

    def save(self, run: Path) -> None:
        """Write what a resumed run needs."""
        ...


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all runs have."""
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--cutouts", type=Path, nargs="*", default=[], help="folders of pictures with transparency")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the loss curve")
    parser.add_argument("--steps", type=int, help="length of the schedule, instead of the recipe's number")
    parser.add_argument("--stop-at", type=int, help="stop at this step, with the schedule unfinished")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200)


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def train(trained: Trained, batches: Iterable[Any], run: Path, *, until: int, save_every: int) -> None:
    """Go on to step `until`, with a checkpoint every `save_every` steps and at the end.

    `RUN/loss.csv` gets a row of the step and the mean losses every `MEAN_OF` steps.
    """
    began, first = time.monotonic(), trained.step
    sums: dict[str, float] = {}
    with (run / "loss.csv").open("a", newline="") as file:
        writer = csv.writer(file)
        for batch in batches:
            if trained.step >= until:
                break
            for name, loss in trained.train_step(batch).items():
                sums[name] = sums.get(name, 0.0) + loss
            if trained.step % MEAN_OF == 0:
                rate = (trained.step - first) / (time.monotonic() - began)
                means = {name: total / MEAN_OF for name, total in sums.items()}
                writer.writerow([trained.step, *(f"{mean:.5f}" for mean in means.values())])
                file.flush()
                print(f"step {trained.step} {means} {rate:.2f} steps/s", flush=True)
                sums = {}
            if trained.step % save_every == 0:
                trained.save(run)
    trained.save(run)
