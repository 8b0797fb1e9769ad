"""`propagate track`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options
from propagate.app.terminal.console import reporting
from propagate.errors import UsageError

EXAMPLES = (
    "Examples:\n\n"
    "propagate track clip.mp4 --keypoints first_frame.json\n\n"
    "propagate track clip.mp4 --reference dog.jpg --keypoints dog.json\n\n"
    "propagate track clip.mp4 --keypoints points.csv --from-frame 20 --device cuda"
)


def track(
    video: options.Video,
    keypoints: Annotated[
        list[Path],
        typer.Option(
            "--keypoints",
            "-k",
            metavar="FILE",
            help="Named points of the first frame, or one file for each --reference: JSON (ours or COCO) or CSV.",
            show_default=False,
        ),
    ],
    keypoints_frame: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Take frame N of the file. \\[default: --from-frame]",
            show_default=False,
        ),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Take the instance of this id, of several in a COCO file.", show_default=False),
    ] = None,
    reference: options.References = None,
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
    output: Annotated[Path | None, options.output_option("VIDEO_keypoints")] = None,
    no_overlay: options.NoOverlay = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Carry the first frame's keypoints through a video."""
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
        if reference and (keypoints_frame is not None or instance is not None):
            raise UsageError(
                "--keypoints-frame and --instance choose from the first frame's own file, not from a --reference's.",
                "Keep one frame and one instance in the reference's file.",
            )
        kept = options.open_cache(cache, cache_size)
        from propagate.app.running.references import only_label, read_references
        from propagate.app.running.run import carry, open_input, read_first_keypoints

        frames = open_input(video, resolved.settings, terminal, leave_out=keypoints)
        first = (
            read_references(reference, keypoints, terminal, masks=False)
            if reference
            else read_first_keypoints(
                only_label(keypoints, "--keypoints"),
                frames.info,
                terminal,
                frame=resolved.settings.video.from_frame if keypoints_frame is None else keypoints_frame,
                chosen=keypoints_frame is not None,
                alone=keypoints_frame is None and from_frame is None,
                instance=instance,
            )
        )
        folder = output or Path(f"{video.stem}_keypoints")
        carry(frames, first, folder, resolved, terminal, command="track", overwrite=overwrite, cache=kept)
