"""`propagate compare`."""

# Annotations are evaluated here, see `options.command`.
from pathlib import Path
from typing import Annotated

from propagate.app import options
from propagate.app.terminal.console import Terminal

EXAMPLES = (
    "Examples:\n\n"
    "propagate compare clip.mp4 --mask first_frame.png --config compact --config rgb --config flow\n\n"
    "propagate compare clip.mp4 --keypoints first_frame.json -c compact -c mine.yaml -o which_is_better"
)


def compare(
    terminal: Terminal,
    video: options.Video,
    configs: Annotated[
        list[str],
        options.option(
            "--config",
            "-c",
            metavar="NAME_OR_FILE",
            help="Preset, YAML file or baseline (static, flow); two or more.",
            panel=options.SETTINGS,
        ),
    ],
    frames: options.Frames,
    weights: options.Weights,
    mask: Annotated[Path | None, options.option("--mask", "-m", metavar="PNG", help="Mask of the first frame.")] = None,
    keypoints: Annotated[
        Path | None, options.option("--keypoints", "-k", metavar="FILE", help="Keypoints of the first frame instead.")
    ] = None,
    resize_mask: Annotated[bool, options.option("--resize-mask", help="Scale the mask to the frame's size.")] = False,
    harden: Annotated[bool, options.option("--harden", help="Cut soft edges at the nearest flat color.")] = False,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    output: Annotated[Path | None, options.output_option("VIDEO_compare")] = None,
    overwrite: Annotated[
        bool, options.option("--overwrite", help="Replace an earlier comparison.", panel=options.OUTPUT)
    ] = False,
) -> int:
    """Run several presets on one video: side by side, with speed, memory and how far they agree."""
    from propagate.app.compare.comparison import compare_methods, methods_of, read_label
    from propagate.app.running.inputs import open_input

    resolved = options.resolve_settings(None, None, **vars(frames), max_memory=max_memory)
    methods = methods_of(configs, options.with_max_memory(assignments or (), max_memory), device)
    clip = open_input(video, resolved.settings, terminal, leave_out=[mask] if mask else [])
    reading = resolved.settings.video
    first = read_label(
        mask,
        keypoints,
        clip.info,
        terminal,
        resize=resize_mask,
        harden=harden,
        frame=reading.from_frame,
        alone=frames.from_frame is None,
    )
    folder = output or Path(f"{video.stem}_compare")
    return compare_methods(clip, first, methods, folder, terminal, reading, overwrite=overwrite)
