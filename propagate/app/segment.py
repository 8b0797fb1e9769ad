"""`propagate segment`."""

# Annotations are evaluated here, see `options.command`.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from propagate.app import options
from propagate.app.terminal.console import Terminal

EXAMPLES = (
    "Examples:\n\n"
    "propagate segment clip.mp4 --mask first_frame.png\n\n"
    "propagate segment clip.mp4 --reference dog.jpg --mask dog.png\n\n"
    "propagate segment frames/ --mask 00000.png -o result --set propagation.top_k=10 --stride 2"
)


@dataclass(frozen=True)
class MaskOptions:
    """The first frame's mask."""

    mask: Annotated[
        list[Path],
        options.option("--mask", "-m", metavar="PNG", help="Mask of the first frame, or one per --reference."),
    ]
    reference: options.References = None
    resize_mask: options.ResizeMask = False
    harden: options.Harden = False


def segment(
    terminal: Terminal,
    video: options.Video,
    label: MaskOptions,
    run: options.Run,
    output: Annotated[Path | None, options.output_option("VIDEO_masks")] = None,
) -> None:
    """Carry the first frame's mask through a video."""
    resolved, cache = run.resolve(), run.cache.open()
    from propagate.app.running.inputs import only_label, open_input, read_mask, read_references
    from propagate.app.running.run import carry

    reader = open_input(video, resolved.settings, terminal, leave_out=label.mask)
    changes = {"resize": label.resize_mask, "harden": label.harden}
    size = (reader.info.height, reader.info.width)
    first = (
        read_references(label.reference, label.mask, terminal, masks=True, **changes)
        if label.reference
        else read_mask(only_label(label.mask, "--mask"), size, terminal, **changes)
    )
    folder = output or Path(f"{video.stem}_masks")
    carry(reader, first, folder, resolved, terminal, command="segment", overwrite=run.overwrite, cache=cache)
