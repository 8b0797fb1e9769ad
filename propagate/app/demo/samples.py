"""Run the samples: the rabbit's mask and keypoints, and the rendered clip with its score."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.table import Table
from rich.text import Text

import propagate
from propagate.app.demo.score import ALPHA, Score
from propagate.app.running.inputs import open_input, read_keypoints, read_mask
from propagate.app.running.outputs import Write, output_folder
from propagate.app.running.run import carry
from propagate.app.terminal.console import Terminal
from propagate.errors import InputError
from propagate.settings import ResolvedSettings


def run_samples(
    samples: Path | None, output: Path, resolved: ResolvedSettings, terminal: Terminal, *, overwrite: bool
) -> None:
    """Run the sample videos of the folder `samples` or of the checkout; write a folder for each run."""
    folder = samples or Path(propagate.__file__).resolve().parent.parent / "sample_videos"
    bunny, rendered = folder / "bunny", folder / "rendered"
    if not (bunny / "clip.mp4").is_file() or not (rendered / "scene.json").is_file():
        raise InputError(
            f"The sample videos are not in {folder}.",
            "They are in the repository, not in the wheel: get it and give --samples REPOSITORY/sample_videos.",
        )
    score = Score(rendered)

    def run(clip: Path, label: Path, observers: Sequence[AbstractContextManager[Write]] = ()) -> None:
        kind = "masks" if label.suffix == ".png" else "keypoints"
        terminal.heading(f"{clip.name}, {kind}")
        reader = open_input(clip / "clip.mp4", resolved.settings, terminal)
        size = (reader.info.height, reader.info.width)
        first = read_mask(label, size, terminal) if kind == "masks" else read_keypoints(label, size, terminal, frame=0)
        place = output / f"{clip.name}_{kind}"
        carry(reader, first, place, resolved, terminal, command="demo", overwrite=overwrite, observers=observers)

    with output_folder(output, terminal, overwrite=overwrite):
        run(bunny, bunny / "mask.png")
        run(bunny, bunny / "keypoints.json")
        run(rendered, rendered / "masks" / "00000.png", [score.masks()])
        run(rendered, rendered / "keypoints.json", [score.keypoints()])
    terminal.heading("rendered, score against the truth")
    terminal.result(_table(score))
    terminal.heading("look at")
    for video in sorted(output.glob("*/overlay.mp4")):
        terminal.result(f"  {video}")


def _table(score: Score) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row(*(Text(title, "dim") for title in ("  object", "mean J", f"PCK@{ALPHA:g}")))
    for name, similarity, correct in score.rows():
        table.add_row(f"  {name}", f"{similarity:.3f}", f"{correct:.3f}", style="bold" if name == "all" else "")
    return table
