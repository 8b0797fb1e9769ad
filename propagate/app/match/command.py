"""`propagate match`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import reporting

EXAMPLES = (
    "Examples:\n\n"
    "propagate match a.jpg b.jpg --points a.json\n\n"
    "propagate match a.jpg b.jpg --dense --config dift_sd_semantic\n\n"
    "A mask is carried to another picture by: propagate segment b.jpg --reference a.jpg --mask a.png"
)


def match(
    a: Annotated[Path, typer.Argument(metavar="A", help="A picture.", show_default=False)],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="The picture in which A's points are found.", show_default=False)
    ],
    points: Annotated[
        Path | None,
        typer.Option("--points", "-p", metavar="FILE", help="Named points of A: JSON or CSV.", show_default=False),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="The match of every cell of A, as .npz and as a picture.")
    ] = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: Annotated[Path | None, options.output_option("A_B_matches")] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Find the points of one picture in another."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        resolved = options.resolve_settings(config, assignments, device=device)
        from propagate.app.match.matches import write_matches

        folder = output or Path(f"{a.stem}_{b.stem}_matches")
        write_matches(a, b, points, folder, resolved, terminal, dense=dense, overwrite=overwrite)
