"""The options of `propagate bench` for the clip."""

# Annotations are evaluated here, see `options.command`.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from propagate.app.options import count, option

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
        option("--mask", "-m", metavar="PNG", help="Mask of the first frame. \\[default: ellipses]", panel=_CLIP),
    ] = None
    frames: Annotated[int, count("Number of frames.", _CLIP, min=2, show_default=True)] = 24
    size: Annotated[
        str | None, option(metavar="WxH", help="Size of the generated clip. \\[default: 854x480]", panel=_CLIP)
    ] = None
    objects: Annotated[int | None, count("Objects without a --mask. \\[default: 1]", _CLIP, max=254)] = None
