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
    configs: Annotated[list[str], options.configs_option("Preset, YAML file or baseline (static, flow); two or more.")],
    frames: options.Frames,
    weights: options.Weights,
    changes: options.Changes,
    mask: Annotated[Path | None, options.option("--mask", "-m", metavar="PNG", help="Mask of the first frame.")] = None,
    keypoints: Annotated[
        Path | None, options.option("--keypoints", "-k", metavar="FILE", help="Keypoints of the first frame instead.")
    ] = None,
    resize_mask: options.ResizeMask = False,
    harden: options.Harden = False,
    output: Annotated[Path | None, options.output_option("VIDEO_compare")] = None,
    overwrite: Annotated[bool, options.flag("--overwrite", "Replace an earlier comparison.", options.OUTPUT)] = False,
) -> int:
    """Run several presets on one video: side by side, with speed, memory and agreement."""
    from propagate.app.compare.comparison import compare_methods, methods_of, read_label
    from propagate.app.running.inputs import open_input

    settings = options.Changes(max_memory=changes.max_memory).resolve(frames=frames).settings
    methods = methods_of(configs, changes.with_memory, changes.device)
    clip = open_input(video, settings, terminal, leave_out=[mask] if mask else [])
    frame = None if frames.from_frame is None else settings.video.from_frame
    first = read_label(mask, keypoints, clip.info, terminal, resize=resize_mask, harden=harden, frame=frame)
    folder = output or Path(f"{video.stem}_compare")
    return compare_methods(clip, first, methods, folder, terminal, settings.video, overwrite=overwrite)
