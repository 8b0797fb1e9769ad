"""`propagate match`."""

# Annotations are evaluated here, see `options.command`.
from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import Terminal

EXAMPLES = (
    "Examples:\n\n"
    "propagate match a.jpg b.jpg --points a.json\n\n"
    "propagate match a.jpg b.jpg --dense --config dift_sd_semantic\n\n"
    "A mask is carried to another picture by: propagate segment b.jpg --reference a.jpg --mask a.png"
)


def match(
    terminal: Terminal,
    a: Annotated[Path, typer.Argument(metavar="A", help="A picture.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Picture to search for the points of A.", show_default=False)],
    weights: options.Weights,
    points: Annotated[Path | None, options.option("--points", "-p", metavar="FILE", help="Keypoints of A.")] = None,
    dense: Annotated[bool, options.option("--dense", help="Match every cell of A; write .npz and a picture.")] = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    output: Annotated[Path | None, options.output_option("A_B_matches")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Find the points of one picture in another picture."""
    resolved = options.Changes(assignments, device).resolve(config)
    from propagate.app.match.matches import write_matches

    folder = output or Path(f"{a.stem}_{b.stem}_matches")
    write_matches(a, b, points, folder, resolved, terminal, dense=dense, overwrite=overwrite)
