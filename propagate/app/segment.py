"""`propagate segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import reporting

EXAMPLES = (
    "Examples:\n\n"
    "propagate segment clip.mp4 --mask first_frame.png\n\n"
    "propagate segment clip.mp4 --reference dog.jpg --mask dog.png\n\n"
    "propagate segment frames/ --mask 00000.png -o result --set propagation.top_k=10 --stride 2"
)


def segment(
    video: options.Video,
    mask: Annotated[
        list[Path],
        typer.Option(
            "--mask",
            "-m",
            metavar="PNG",
            help="Objects of the first frame, or one for each --reference.",
            show_default=False,
        ),
    ],
    reference: options.References = None,
    resize_mask: Annotated[
        bool, typer.Option("--resize-mask", help="Bring the mask to the video's or the reference's size.")
    ] = False,
    harden: Annotated[
        bool, typer.Option("--harden", help="Cut a mask's soft edges at the nearest flat color.")
    ] = False,
    from_frame: options.FromFrame = None,
    to_frame: options.ToFrame = None,
    stride: options.Stride = None,
    reader: options.ReaderChoice = None,
    strict: options.Strict = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    cache: options.Cache = None,
    cache_size: options.CacheSize = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: Annotated[Path | None, options.output_option("VIDEO_masks")] = None,
    no_overlay: options.NoOverlay = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Carry the first frame's mask through a video."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        resolved = options.resolve_settings(
            config,
            assignments,
            reader=reader,
            strict=strict,
            from_frame=from_frame,
            to_frame=to_frame,
            stride=stride,
            device=device,
            max_memory=max_memory,
            no_overlay=no_overlay,
        )
        kept = options.open_cache(cache, cache_size)
        from propagate.app.running.references import only_label, read_references
        from propagate.app.running.run import carry, open_input, read_first_mask

        frames = open_input(video, resolved.settings, terminal, leave_out=mask)
        first = (
            read_references(reference, mask, terminal, masks=True, resize=resize_mask, harden=harden)
            if reference
            else read_first_mask(only_label(mask, "--mask"), frames.info, terminal, resize=resize_mask, harden=harden)
        )
        folder = output or Path(f"{video.stem}_masks")
        carry(frames, first, folder, resolved, terminal, command="segment", overwrite=overwrite, cache=kept)
