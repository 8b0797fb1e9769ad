"""`propagate bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import reporting

EXAMPLES = (
    "Examples:\n\n"
    "propagate bench --config compact --dense\n\n"
    "propagate bench clip.mp4 --mask first_frame.png --config compact --config rgb --repeat 5\n\n"
    "propagate bench --size 640x360 --objects 10 --frames 60 --json > times.json"
)
_CLIP, _RUNNING, _OUTPUT = "Clip", "Running", "Output"


def bench(
    video: Annotated[
        Path | None,
        typer.Argument(
            metavar="[VIDEO]", help="A video or folder of pictures. \\[default: a generated clip]", show_default=False
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            "-m",
            metavar="PNG",
            help="Objects of VIDEO's first frame. \\[default: ellipses]",
            rich_help_panel=_CLIP,
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=2, metavar="N", help="Frames, at most VIDEO's own.", rich_help_panel=_CLIP)
    ] = 24,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Of the generated clip. \\[default: 854x480]",
            rich_help_panel=_CLIP,
            show_default=False,
        ),
    ] = None,
    objects: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=254,
            metavar="N",
            help="Objects, where no mask is given. \\[default: 1]",
            rich_help_panel=_CLIP,
            show_default=False,
        ),
    ] = None,
    configs: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="NAME_OR_FILE",
            help="Preset or YAML file; repeated: compared with the first, in turns; the same one twice shows the "
            "noise. \\[default: compact]",
            rich_help_panel="Settings",
        ),
    ] = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    repeat: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs after the warm-up.", rich_help_panel=_RUNNING)
    ] = 3,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Also time the transfer as the papers' scripts write it, on the same tensors.",
            rich_help_panel=_RUNNING,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else.", rich_help_panel=_OUTPUT)
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Time every stage and the whole, of one preset or of several in turns."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from propagate.app.bench.benching import Choices, run_bench, size_of
        from propagate.settings import DEFAULT_PRESET

        names = configs or [DEFAULT_PRESET]
        chosen = Choices(
            video=video,
            mask=mask,
            frames=frames,
            size=size_of(size, video),
            objects=objects,
            settings=tuple(
                (name, options.resolve_settings(name, assignments, device=device, max_memory=max_memory))
                for name in names
            ),
            repeat=repeat,
            dense=dense,
        )
        run_bench(chosen, terminal, as_json=as_json)
