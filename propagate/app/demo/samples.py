"""What `propagate demo` does: the rabbit's mask and keypoints, and the rendered clip with its score."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.table import Table
from rich.text import Text

import propagate
from propagate.app.demo.score import ALPHA, Score
from propagate.app.running.inputs import open_input, read_first_keypoints, read_first_mask
from propagate.app.running.outputs import Write, output_folder
from propagate.app.running.run import carry
from propagate.app.terminal.console import Terminal
from propagate.errors import InputError
from propagate.settings import ResolvedSettings


def run_samples(
    samples: Path | None, output: Path, resolved: ResolvedSettings, terminal: Terminal, *, overwrite: bool
) -> None:
    """Run the demo.

    Args:
        samples: the folder of the sample videos, None for the checkout's.
        output: gets a folder for each run.
        resolved: settings and where they came from.
        terminal: where to print.
        overwrite: accept an output folder that holds something.

    Raises:
        InputError: the sample videos are not there.
        UsageError: the output folder is not empty.
    """
    folder = find_samples(samples)
    bunny, rendered = folder / "bunny", folder / "rendered"
    score = Score(rendered)

    def run(clip: Path, label: Path, observers: Sequence[AbstractContextManager[Write]] = ()) -> None:
        kind = "masks" if label.suffix == ".png" else "keypoints"
        terminal.heading(f"{clip.name}, {kind}")
        reader = open_input(clip / "clip.mp4", resolved.settings, terminal)
        if kind == "masks":
            first = read_first_mask(label, reader.info, terminal, resize=False)
        else:
            first = read_first_keypoints(label, reader.info, terminal, frame=0)
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


def find_samples(samples: Path | None) -> Path:
    """The folder of the sample videos.

    Raises:
        InputError: they are not there.
    """
    folder = samples or Path(propagate.__file__).resolve().parent.parent / "sample_videos"
    if not (folder / "bunny" / "clip.mp4").is_file() or not (folder / "rendered" / "scene.json").is_file():
        raise InputError(
            f"The sample videos are not in {folder}.",
            "They are in the repository, not in the wheel: get it and give --samples REPOSITORY/sample_videos.",
        )
    return folder


def _table(score: Score) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row(*(Text(title, "dim") for title in ("  object", "mean J", f"PCK@{ALPHA:g}")))
    rows = score.rows()
    for number, (name, similarity, correct) in enumerate(rows, start=1):
        style = "bold" if number == len(rows) else ""
        table.add_row(f"  {name}", f"{similarity:.3f}", f"{correct:.3f}", style=style)
    return table
