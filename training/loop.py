"""The loop that all training runs share: options, loss curve, checkpoints and the last step."""

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
    """A model that is trained step by step.

    Attributes:
        step: number of finished steps.
    """

    step: int

    def train_step(self, batch: Any) -> dict[str, float]:
        """Run one step on one batch and return the losses by name."""
        ...

    def save(self, run: Path) -> None:
        """Write a checkpoint that a run can resume from."""
        ...


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all runs share."""
    parser.add_argument("--photos", type=Path, required=True, help="folder of .jpg photographs")
    parser.add_argument("--cutouts", type=Path, nargs="*", default=[], help="folders of .png cut-outs")
    parser.add_argument("--run", type=Path, required=True, help="write checkpoints and the loss curve here")
    parser.add_argument("--steps", type=int, help="length of the schedule; default: that of the recipe")
    parser.add_argument("--stop-at", type=int, help="stop at this step, before the schedule ends")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, batches and noise")
    parser.add_argument("--save-every", type=int, default=200, help="write a checkpoint every N steps")


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def train(trained: Trained, batches: Iterable[Any], run: Path, *, until: int, save_every: int) -> None:
    """Train up to step `until`. Save a checkpoint every `save_every` steps and at the end.

    Every `MEAN_OF` steps, append a row to `RUN/loss.csv`: the step and the mean losses.
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
