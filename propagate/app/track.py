"""`propagate track`."""

# Annotations are evaluated here, see `options.command`.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from propagate.app import options
from propagate.app.terminal.console import Terminal
from propagate.errors import UsageError

EXAMPLES = (
    "Examples:\n\n"
    "propagate track clip.mp4 --keypoints first_frame.json\n\n"
    "propagate track clip.mp4 --reference dog.jpg --keypoints dog.json\n\n"
    "propagate track clip.mp4 --keypoints points.csv --from-frame 20 --device cuda"
)


@dataclass(frozen=True)
class KeypointOptions:
    """The first frame's keypoints."""

    keypoints: Annotated[
        list[Path],
        options.option(
            "--keypoints",
            "-k",
            metavar="FILE",
            help="Keypoints of the first frame: JSON, COCO or CSV; one per --reference.",
        ),
    ]
    keypoints_frame: Annotated[
        int | None, options.count("Use frame N of the file. \\[default: --from-frame]", min=0)
    ] = None
    instance: Annotated[str | None, options.option(metavar="ID", help="Use this instance of a COCO file.")] = None
    reference: options.References = None


def track(
    terminal: Terminal,
    video: options.Video,
    label: KeypointOptions,
    run: options.Run,
    output: Annotated[Path | None, options.output_option("VIDEO_keypoints")] = None,
) -> None:
    """Carry the first frame's keypoints through a video."""
    resolved = run.resolve()
    number = label.keypoints_frame
    if label.reference and (number is not None or label.instance is not None):
        raise UsageError(
            "--keypoints-frame and --instance choose from the first frame's own file, not from a --reference's.",
            "Keep one frame and one instance in the reference's file.",
        )
    cache = run.cache.open()
    from propagate.app.running.inputs import only_label, open_input, read_keypoints, read_references
    from propagate.app.running.run import carry

    reader = open_input(video, resolved.settings, terminal, leave_out=label.keypoints)
    info = reader.info
    first = (
        read_references(label.reference, label.keypoints, terminal, masks=False)
        if label.reference
        else read_keypoints(
            only_label(label.keypoints, "--keypoints"),
            (info.height, info.width),
            terminal,
            frame=resolved.settings.video.from_frame if number is None else number,
            instance=label.instance,
            picture=info.names[0] if info.names and number is None else None,
            alone=number is None and run.frames.from_frame is None,
        )
    )
    folder = output or Path(f"{video.stem}_keypoints")
    carry(reader, first, folder, resolved, terminal, command="track", overwrite=run.overwrite, cache=cache)
