"""`propagate demo`: the sample videos, carried and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import reporting


def demo(
    samples: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder sample_videos. \\[default: the checkout's]", show_default=False),
    ] = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: Annotated[Path, options.output_option("demo_output")] = Path("demo_output"),
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Carry masks and keypoints through the sample videos, and score the one whose truth is known."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        resolved = options.resolve_settings(config, assignments, device=device, max_memory=max_memory)
        from propagate.app.demo.samples import run_samples

        run_samples(samples, output, resolved, terminal, overwrite=overwrite)
