"""`propagate demo`: run and score the sample videos."""

# Annotations are evaluated here, see `options.command`.
from pathlib import Path
from typing import Annotated

from propagate.app import options
from propagate.app.terminal.console import Terminal


def demo(
    terminal: Terminal,
    preset: options.Preset,
    weights: options.Weights,
    samples: Annotated[
        Path | None, options.option(metavar="DIR", help="Folder sample_videos. \\[default: the checkout's]")
    ] = None,
    output: Annotated[Path, options.output_option("demo_output")] = Path("demo_output"),
    overwrite: options.Overwrite = False,
) -> None:
    """Carry masks and keypoints through the sample videos, and score one of them."""
    resolved = preset.changes.resolve(preset.config)
    from propagate.app.demo.samples import run_samples

    run_samples(samples, output, resolved, terminal, overwrite=overwrite)
