from __future__ import annotations

import csv
from itertools import count
from pathlib import Path

import pytest

from training.loop import train


class Counting:
    """Its loss is the batch; notes at which steps it was saved."""

    def __init__(self, step: int = 0) -> None:
        self.step, self.saved = step, list[int]()

    def train_step(self, batch: int) -> dict[str, float]:
        self.step += 1
        return {"loss": float(batch), "twice": 2.0 * batch}

    def save(self, run: Path) -> None:
        self.saved.append(self.step)


@pytest.mark.parametrize(("until", "saved"), [(7, [3, 6, 7]), (6, [3, 6, 6]), (2, [2])])
def test_it_saves_on_the_way_and_at_the_end(tmp_path, until, saved):
    run = Counting()
    train(run, count(), tmp_path, until=until, save_every=3)
    assert run.step == until
    assert run.saved == saved


def test_a_row_of_the_curve_is_the_mean_of_its_steps(tmp_path):
    train(Counting(), count(1), tmp_path, until=60, save_every=100)
    rows = list(csv.reader((tmp_path / "loss.csv").read_text().splitlines()))
    # the means of 1 .. 25 and 26 .. 50; ten steps are too few for a row
    assert [[float(value) for value in row] for row in rows] == [[25, 13, 26], [50, 38, 76]]


def test_a_resumed_run_appends_to_the_curve(tmp_path):
    train(Counting(), count(1), tmp_path, until=25, save_every=100)
    train(Counting(25), count(26), tmp_path, until=50, save_every=100)
    assert (tmp_path / "loss.csv").read_text().splitlines() == ["25,13.00000,26.00000", "50,38.00000,76.00000"]


def test_a_finished_run_makes_no_step(tmp_path):
    run = Counting(5)
    train(run, count(), tmp_path, until=5, save_every=1)
    assert run.step == 5
