"""The options that several commands share, and the settings they change."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from propagate.errors import UsageError

if TYPE_CHECKING:
    from propagate.feature_cache.store import FeatureCache
    from propagate.settings import ResolvedSettings

_FRAMES, _SETTINGS, _OUTPUT, _MESSAGES = "Frames", "Settings", "Output", "Messages"

Reader = Literal["auto", "decord", "pyav", "folder"]

Video = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="A video file, a folder of pictures or one picture.", show_default=False)
]
References = Annotated[
    list[Path] | None,
    typer.Option(
        "--reference",
        "-r",
        metavar="PICTURE",
        help="Another picture of such a thing: the label is its, and is found in the first frame; may be repeated.",
        show_default=False,
    ),
]
FromFrame = Annotated[
    int | None,
    typer.Option(
        min=0, help="Number of the first frame; the mask or keypoints are its.", rich_help_panel=_FRAMES, metavar="N"
    ),
]
ToFrame = Annotated[
    int | None,
    typer.Option(min=1, help="Number of the first frame no longer read.", rich_help_panel=_FRAMES, metavar="N"),
]
Stride = Annotated[int | None, typer.Option(min=1, help="Read every N-th frame.", rich_help_panel=_FRAMES, metavar="N")]
ReaderChoice = Annotated[
    Reader | None, typer.Option("--reader", help="What decodes the video.", rich_help_panel=_FRAMES)
]
Strict = Annotated[bool, typer.Option("--strict", help="A video that ends early is an error.", rich_help_panel=_FRAMES)]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="NAME_OR_FILE",
        help="Preset or YAML file. \\[default: compact]",
        rich_help_panel=_SETTINGS,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change one setting, such as propagation.top_k=10; may be repeated.",
        rich_help_panel=_SETTINGS,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1, mps: short for --set features.device=NAME.",
        rich_help_panel=_SETTINGS,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Fit into this much memory, such as 6GB or 512MiB: short for --set max_memory=SIZE.",
        rich_help_panel=_SETTINGS,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep features in this folder and take those that it has: another mask or top-k costs only the transfer.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
CacheSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Of the folder of --cache at most; what was not used for longest goes first. \\[default: 20GB]",
        rich_help_panel=_SETTINGS,
    ),
]


def _stay_offline(wanted: bool) -> bool:
    """Runs while options are read, before anything imports huggingface_hub, which looks at the variable only once."""
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return wanted


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_stay_offline,
        help="Download nothing; weights must be on this machine.",
        rich_help_panel=_SETTINGS,
    ),
]


def _agree(given: bool) -> bool:
    """Runs while options are read; processes that are started later inherit it."""
    if given:
        from propagate.weights.locating import CONSENT

        os.environ[CONSENT] = "yes"
    return given


Yes = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        callback=_agree,
        help="Download weights without asking.",
        rich_help_panel=_SETTINGS,
    ),
]
NoOverlay = Annotated[bool, typer.Option("--no-overlay", help="Write no annotated video.", rich_help_panel=_OUTPUT)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write into a folder that holds something.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=_MESSAGES)]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        metavar="",
        help="Print more; -vv: tracebacks too.",
        rich_help_panel=_MESSAGES,
    ),
]


def output_option(default: str) -> typer.models.OptionInfo:
    """`-o/--output` with the help text of its default."""
    option: typer.models.OptionInfo = typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help=f"Folder of the results. \\[default: {default}]",
        rich_help_panel=_OUTPUT,
        show_default=False,
    )
    return option


def resolve_settings(
    config: str | None,
    assignments: Iterable[str] | None,
    *,
    reader: str | None = None,
    strict: bool = False,
    from_frame: int | None = None,
    to_frame: int | None = None,
    stride: int | None = None,
    device: str | None = None,
    max_memory: str | None = None,
    no_overlay: bool = False,
) -> ResolvedSettings:
    """The settings of a preset, changed by `--set` and then by the options that were given.

    Raises:
        UsageError: unknown preset, key or a value that does not fit.
    """
    import json

    from propagate.settings import DEFAULT_PRESET, ResolvedSettings, load_with_origins

    options = {
        "--reader": ("video.reader", reader),
        "--strict": ("video.strict", True if strict else None),
        "--from-frame": ("video.from_frame", from_frame),
        "--to-frame": ("video.to_frame", to_frame),
        "--stride": ("video.stride", stride),
        "--device": ("features.device", device),
        "--max-memory": ("max_memory", max_memory),
        "--no-overlay": ("output.overlay", False if no_overlay else None),
    }
    given = {option: (key, value) for option, (key, value) in options.items() if value is not None}
    changes = [f"{key}={json.dumps(value)}" for key, value in given.values()]
    resolved = load_with_origins(config or DEFAULT_PRESET, [*(assignments or ()), *changes])
    origins = {**resolved.origins, **{key: option for option, (key, _) in given.items()}}
    return ResolvedSettings(resolved.settings, origins)


def open_cache(folder: Path | None, size: str | None) -> FeatureCache | None:
    """The cache of `--cache` and `--cache-size`; None where none is asked for.

    Raises:
        UsageError: a size that is none, or without a folder.
        InputError: the folder cannot be written.
    """
    if folder is None:
        if size is not None:
            raise UsageError("--cache-size without --cache: there is no folder.", "Name one with --cache.")
        return None
    from propagate.feature_cache.store import DEFAULT_CACHE_BYTES, FeatureCache  # with torch, which takes seconds
    from propagate.settings import memory_size

    return FeatureCache(folder, DEFAULT_CACHE_BYTES if size is None else memory_size(size, "--cache-size"))
