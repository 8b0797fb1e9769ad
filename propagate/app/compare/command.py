"""`propagate compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import reporting

EXAMPLES = (
    "Examples:\n\n"
    "propagate compare clip.mp4 --mask first_frame.png --config compact --config rgb --config flow\n\n"
    "propagate compare clip.mp4 --keypoints first_frame.json -c compact -c mine.yaml -o which_is_better"
)


def compare(
    video: options.Video,
    configs: Annotated[
        list[str],
        typer.Option(
            "--config",
            "-c",
            metavar="NAME_OR_FILE",
            help="Preset, YAML file, or baseline (static, flow); give two or more.",
            rich_help_panel="Settings",
            show_default=False,
        ),
    ],
    mask: Annotated[
        Path | None, typer.Option("--mask", "-m", metavar="PNG", help="Objects of the first frame.", show_default=False)
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option("--keypoints", "-k", metavar="FILE", help="Or its keypoints, JSON or CSV.", show_default=False),
    ] = None,
    resize_mask: Annotated[bool, typer.Option("--resize-mask", help="Bring the mask to the video's size.")] = False,
    harden: Annotated[
        bool, typer.Option("--harden", help="Cut a mask's soft edges at the nearest flat color.")
    ] = False,
    from_frame: options.FromFrame = None,
    to_frame: options.ToFrame = None,
    stride: options.Stride = None,
    reader: options.ReaderChoice = None,
    strict: options.Strict = False,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: Annotated[Path | None, options.output_option("VIDEO_compare")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier comparison wrote.", rich_help_panel="Output")
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Run several presets on one video: side by side, with speed, memory and how far they agree."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from propagate.app.compare.comparison import compare_methods, methods_of, read_label
        from propagate.app.running.run import open_input

        resolved = options.resolve_settings(
            None,
            None,
            reader=reader,
            strict=strict,
            from_frame=from_frame,
            to_frame=to_frame,
            stride=stride,
            max_memory=max_memory,
        )
        frames = resolved.settings.video
        limit = [] if max_memory is None else [f"max_memory={max_memory}"]
        methods = methods_of(configs, [*(assignments or ()), *limit], device)
        clip = open_input(video, resolved.settings, terminal, leave_out=[mask] if mask else [])
        first = read_label(
            mask,
            keypoints,
            clip.info,
            terminal,
            resize=resize_mask,
            harden=harden,
            frame=frames.from_frame,
            alone=from_frame is None,
        )
        folder = output or Path(f"{video.stem}_compare")
        if code := compare_methods(clip, first, methods, folder, terminal, frames, overwrite=overwrite):
            raise typer.Exit(code)
