"""The options of `propagate bench` for the clip."""

# Annotations are evaluated here, see `options.command`.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from propagate.app import options

_CLIP = "Clip"


@dataclass(frozen=True)
class ClipChoices:
    """The clip: a video with an optional mask, or a generated one."""

    video: Annotated[
        Path | None,
        typer.Argument(
            metavar="[VIDEO]", help="Video or folder of pictures. \\[default: a generated clip]", show_default=False
        ),
    ] = None
    mask: Annotated[
        Path | None,
        options.option(
            "--mask", "-m", metavar="PNG", help="Mask of the first frame. \\[default: ellipses]", panel=_CLIP
        ),
    ] = None
    frames: Annotated[
        int, options.option(min=2, metavar="N", help="Number of frames.", panel=_CLIP, show_default=True)
    ] = 24
    size: Annotated[
        str | None, options.option(metavar="WxH", help="Size of the generated clip. \\[default: 854x480]", panel=_CLIP)
    ] = None
    objects: Annotated[
        int | None,
        options.option(min=1, max=254, metavar="N", help="Objects without a --mask. \\[default: 1]", panel=_CLIP),
    ] = None
