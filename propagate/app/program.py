"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from propagate.app.bench.command import EXAMPLES as BENCH_EXAMPLES
from propagate.app.bench.command import bench
from propagate.app.compare.command import EXAMPLES as COMPARE_EXAMPLES
from propagate.app.compare.command import compare
from propagate.app.config import app as config
from propagate.app.demo.command import demo
from propagate.app.doctor import doctor
from propagate.app.evaluate.command import app as evaluate
from propagate.app.evaluate.sweep import app as sweep
from propagate.app.match.command import EXAMPLES as MATCH_EXAMPLES
from propagate.app.match.command import match
from propagate.app.models import app as models
from propagate.app.options import command
from propagate.app.segment import EXAMPLES as SEGMENT_EXAMPLES
from propagate.app.segment import segment
from propagate.app.track import EXAMPLES as TRACK_EXAMPLES
from propagate.app.track import track
from propagate.version import __version__

app = typer.Typer(
    help="Carry a first-frame mask or pose through a video with the features of image diffusion models.",
    epilog=(
        "Examples:\n\n"
        "propagate segment clip.mp4 --mask first_frame.png\n\n"
        "propagate track clip.mp4 --keypoints first_frame.json\n\n"
        "propagate demo"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command("segment", epilog=SEGMENT_EXAMPLES)(command(segment))
app.command("track", epilog=TRACK_EXAMPLES)(command(track))
app.command("compare", epilog=COMPARE_EXAMPLES)(command(compare))
app.command("match", epilog=MATCH_EXAMPLES)(command(match))
app.command("demo")(command(demo))
app.add_typer(evaluate, name="evaluate")
app.add_typer(sweep, name="sweep")
app.add_typer(config, name="config")
app.add_typer(models, name="models")
app.command("bench", epilog=BENCH_EXAMPLES)(command(bench))
app.command("doctor")(command(doctor))


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"propagate {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Exists for the options that stand before a command."""
