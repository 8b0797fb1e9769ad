"""`propagate bench`."""

# Annotations are evaluated here, see `options.command`.
from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import Terminal

EXAMPLES = (
    "Examples:\n\n"
    "propagate bench --config compact --dense\n\n"
    "propagate bench clip.mp4 --mask first_frame.png --config compact --config rgb --repeat 5\n\n"
    "propagate bench --size 640x360 --objects 10 --frames 60 --json > times.json"
)
_CLIP, _RUNNING = "Clip", "Running"


def bench(
    terminal: Terminal,
    weights: options.Weights,
    video: Annotated[
        Path | None,
        typer.Argument(
            metavar="[VIDEO]", help="Video or folder of pictures. \\[default: a generated clip]", show_default=False
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        options.option(
            "--mask", "-m", metavar="PNG", help="Mask of the first frame. \\[default: ellipses]", panel=_CLIP
        ),
    ] = None,
    frames: Annotated[
        int, options.option(min=2, metavar="N", help="Number of frames.", panel=_CLIP, show_default=True)
    ] = 24,
    size: Annotated[
        str | None, options.option(metavar="WxH", help="Size of the generated clip. \\[default: 854x480]", panel=_CLIP)
    ] = None,
    objects: Annotated[
        int | None,
        options.option(min=1, max=254, metavar="N", help="Objects without a --mask. \\[default: 1]", panel=_CLIP),
    ] = None,
    configs: Annotated[
        list[str] | None,
        options.option(
            "--config",
            "-c",
            metavar="NAME_OR_FILE",
            help="Preset or YAML file; repeat to compare. \\[default: compact]",
            panel=options.SETTINGS,
        ),
    ] = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    repeat: Annotated[
        int, options.option(min=1, metavar="N", help="Runs after the warm-up.", panel=_RUNNING, show_default=True)
    ] = 3,
    dense: Annotated[bool, options.option("--dense", help="Time the dense formulation, too.", panel=_RUNNING)] = False,
    as_json: Annotated[
        bool, options.option("--json", help="Print JSON and nothing else.", panel=options.OUTPUT)
    ] = False,
) -> None:
    """Time every stage and the whole, of one preset or of several in turns."""
    from propagate.app.bench.benching import Choices, run_bench, size_of
    from propagate.settings import DEFAULT_PRESET

    settings = tuple(
        (name, options.resolve_settings(name, assignments, device=device, max_memory=max_memory))
        for name in configs or [DEFAULT_PRESET]
    )
    chosen = Choices(
        video=video,
        mask=mask,
        frames=frames,
        size=size_of(size, video),
        objects=objects,
        settings=settings,
        repeat=repeat,
        dense=dense,
    )
    run_bench(chosen, terminal, as_json=as_json)
