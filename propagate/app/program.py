"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from propagate.app import segment, track
from propagate.app.bench import command as bench
from propagate.app.compare import command as compare
from propagate.app.config import app as config
from propagate.app.demo.command import demo
from propagate.app.doctor import doctor
from propagate.app.evaluate.command import app as evaluate
from propagate.app.evaluate.sweep import app as sweep
from propagate.app.match import command as match
from propagate.app.models import app as models
from propagate.app.options import command
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
app.command("segment", epilog=segment.EXAMPLES)(command(segment.segment))
app.command("track", epilog=track.EXAMPLES)(command(track.track))
app.command("compare", epilog=compare.EXAMPLES)(command(compare.compare))
app.command("match", epilog=match.EXAMPLES)(command(match.match))
app.command("demo")(command(demo))
app.add_typer(evaluate, name="evaluate")
app.add_typer(sweep, name="sweep")
app.add_typer(config, name="config")
app.add_typer(models, name="models")
app.command("bench", epilog=bench.EXAMPLES)(command(bench.bench))
app.command("doctor")(command(doctor))


def _print_version(given: bool) -> bool:
    if given:
        typer.echo(f"propagate {__version__}")
        raise typer.Exit
    return given


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Define the options before a command."""
