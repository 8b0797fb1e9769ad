"""Options that several commands share, the groups they come in, and what turns a function into a command."""

# Annotations are evaluated here: commands are put together from groups of options.
import inspect
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from propagate.app.terminal.console import reporting
from propagate.errors import UsageError

if TYPE_CHECKING:
    from propagate.feature_cache.store import FeatureCache
    from propagate.settings import ResolvedSettings

FRAMES, SETTINGS, OUTPUT, MESSAGES = "Frames", "Settings", "Output", "Messages"


def option(*names: str, help: str, panel: str | None = None, metavar: str | None = None, **more: Any) -> Any:
    """Return a typer option; its default is shown only where the help text has it."""
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, **{"show_default": False, **more})


def _stay_offline(wanted: bool) -> bool:
    """Runs while options are read: huggingface_hub looks at the variable once, when it is imported."""
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return wanted


def _agree(given: bool) -> bool:
    """Runs while options are read. Worker processes inherit the variable."""
    if given:
        from propagate.weights.locating import CONSENT

        os.environ[CONSENT] = "yes"
    return given


Reader = Literal["auto", "decord", "pyav", "folder"]

Video = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="Video file, folder of pictures or one picture.", show_default=False)
]
References = Annotated[
    list[Path] | None,
    option(
        "--reference", "-r", metavar="PICTURE", help="Find the label of this picture in the first frame; repeatable."
    ),
]
Assignments = Annotated[
    list[str] | None,
    option("--set", metavar="A.B=C", help="Change a setting: propagation.top_k=10; repeatable.", panel=SETTINGS),
]
Config = Annotated[
    str | None,
    option("--config", "-c", metavar="NAME_OR_FILE", help="Preset or YAML file. \\[default: compact]", panel=SETTINGS),
]
Device = Annotated[
    str | None, option(metavar="NAME", help="Set features.device: auto, cpu, cuda, cuda:1, mps.", panel=SETTINGS)
]
MaxMemory = Annotated[
    str | None, option(metavar="SIZE", help="Set max_memory: fit into 6GB or 512MiB.", panel=SETTINGS)
]
Offline = Annotated[
    bool,
    option("--offline", callback=_stay_offline, help="Download nothing; use weights on this machine.", panel=SETTINGS),
]
Yes = Annotated[bool, option("--yes", "-y", callback=_agree, help="Download weights without asking.", panel=SETTINGS)]
Overwrite = Annotated[bool, option("--overwrite", help="Write into a folder that is not empty.", panel=OUTPUT)]
Quiet = Annotated[bool, option("--quiet", "-q", help="Print errors only.", panel=MESSAGES)]
Verbose = Annotated[
    int, option("--verbose", "-v", count=True, metavar="", help="Print more; -vv: tracebacks too.", panel=MESSAGES)
]


def output_option(default: str) -> Any:
    """Return `-o/--output` with the help text of its default."""
    return option("--output", "-o", metavar="DIR", help=f"Write results here. \\[default: {default}]", panel=OUTPUT)


@dataclass(frozen=True)
class Frames:
    """Which frames of the video are read."""

    from_frame: Annotated[int | None, option(min=0, metavar="N", help="Start at this frame.", panel=FRAMES)] = None
    to_frame: Annotated[int | None, option(min=1, metavar="N", help="Stop before this frame.", panel=FRAMES)] = None
    stride: Annotated[int | None, option(min=1, metavar="N", help="Read every N-th frame.", panel=FRAMES)] = None
    reader: Annotated[
        Reader | None,
        option("--reader", help="Video reader. \\[default: auto]", panel=FRAMES),
    ] = None
    strict: Annotated[bool, option("--strict", help="Fail if the video ends early.", panel=FRAMES)] = False


@dataclass(frozen=True)
class Weights:
    """Whether weights may be downloaded."""

    offline: Offline = False
    yes: Yes = False


@dataclass(frozen=True)
class Preset:
    """A preset and what changes it."""

    config: Config = None
    assignments: Assignments = None
    device: Device = None
    max_memory: MaxMemory = None

    def resolve(self, frames: Frames | None = None, *, no_overlay: bool = False) -> "ResolvedSettings":
        """Return the settings of the preset, changed by `--set` and then by the other options.

        Raises:
            UsageError: an unknown preset or key, or a value that does not fit.
        """
        return resolve_settings(
            self.config,
            self.assignments,
            **(vars(frames) if frames is not None else {}),
            device=self.device,
            max_memory=self.max_memory,
            no_overlay=no_overlay,
        )


@dataclass(frozen=True)
class Cache:
    """Where features are kept on disk."""

    cache: Annotated[Path | None, option(metavar="DIR", help="Directory for cached features.", panel=SETTINGS)] = None
    cache_size: Annotated[
        str | None, option(metavar="SIZE", help="Size limit of the cache. \\[default: 20GB]", panel=SETTINGS)
    ] = None

    def open(self) -> "FeatureCache | None":
        """Return the cache, or None where none was asked for.

        Raises:
            UsageError: the size is not one, or there is no folder.
            InputError: the folder cannot be written.
        """
        if self.cache is None:
            if self.cache_size is not None:
                raise UsageError("--cache-size without --cache: there is no folder.", "Name one with --cache.")
            return None
        from propagate.feature_cache.store import DEFAULT_CACHE_BYTES, FeatureCache  # with torch, which takes seconds
        from propagate.settings import memory_size

        limit = DEFAULT_CACHE_BYTES if self.cache_size is None else memory_size(self.cache_size, "--cache-size")
        return FeatureCache(self.cache, limit)


@dataclass(frozen=True)
class Run:
    """What `segment` and `track` share."""

    frames: Frames
    preset: Preset
    cache: Cache
    weights: Weights
    no_overlay: Annotated[bool, option("--no-overlay", help="Write no annotated video.", panel=OUTPUT)] = False
    overwrite: Overwrite = False

    def resolve(self) -> "ResolvedSettings":
        """Return the settings; see `Preset.resolve`."""
        return self.preset.resolve(self.frames, no_overlay=self.no_overlay)


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
) -> "ResolvedSettings":
    """Return the settings of a preset, changed by `--set` and then by the options that were given.

    Raises:
        UsageError: an unknown preset or key, or a value that does not fit.
    """
    from propagate.settings import DEFAULT_PRESET, ResolvedSettings, load_with_origins

    options = {
        "--reader": ("video.reader", reader),
        "--strict": ("video.strict", strict or None),
        "--from-frame": ("video.from_frame", from_frame),
        "--to-frame": ("video.to_frame", to_frame),
        "--stride": ("video.stride", stride),
        "--device": ("features.device", device),
        "--max-memory": ("max_memory", max_memory),
        "--no-overlay": ("output.overlay", False if no_overlay else None),
    }
    given = {name: (key, value) for name, (key, value) in options.items() if value is not None}
    changes = [f"{key}={json.dumps(value)}" for key, value in given.values()]
    resolved = load_with_origins(config or DEFAULT_PRESET, [*(assignments or ()), *changes])
    origins = {**resolved.origins, **{key: name for name, (key, _) in given.items()}}
    return ResolvedSettings(resolved.settings, origins)


def with_max_memory(assignments: Sequence[str], size: str | None) -> Sequence[str]:
    """Return `--set` with `--max-memory` as one more assignment, where it is given."""
    return assignments if size is None else [*assignments, f"max_memory={json.dumps(size)}"]


def command(act: Callable[..., int | None], **parts: Callable[..., Any]) -> Callable[..., None]:
    """Return `act` as a typer command.

    `act(terminal, ...)` gets a `Terminal`, and returns the exit code or None. Each further parameter is an option, or a
    group of options: a dataclass, whose fields are options or groups. `--quiet` and `--verbose` are added.

    Args:
        act: what the command does; its docstring is the help text.
        **parts: a function for a parameter of `act`: its parameters are options, and its result is the value. Where
            there is one, its docstring is the help text.
    """
    groups = {
        name: parts.get(name, parameter.annotation)
        for name, parameter in list(inspect.signature(act).parameters.items())[1:]
    }

    def run(**given: Any) -> None:
        with reporting(quiet=given.pop("quiet"), verbose=given.pop("verbose")) as terminal:
            values = {name: _value(name, kind, given) for name, kind in groups.items()}
            if code := act(terminal, **values):
                raise typer.Exit(code)

    own = inspect.signature(act).parameters
    everything = [one for name, kind in groups.items() for one in _options(own[name].replace(annotation=kind))]
    for name, kind, default in (("quiet", Quiet, False), ("verbose", Verbose, 0)):
        everything.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    everything.sort(key=lambda one: one.default is not inspect.Parameter.empty)  # as a signature wants it
    run.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    run.__doc__ = next((part.__doc__ for part in parts.values()), act.__doc__)
    run.__name__ = act.__name__
    return run


def _is_group(kind: Any) -> bool:
    return is_dataclass(kind) or inspect.isfunction(kind)


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if not _is_group(parameter.annotation):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    inner = inspect.signature(parameter.annotation).parameters.values()
    return [one for each in inner for one in _options(each)]


def _value(name: str, kind: Any, given: dict[str, Any]) -> Any:
    if not _is_group(kind):
        return given[name]
    inner = inspect.signature(kind).parameters
    return kind(**{each: _value(each, one.annotation, given) for each, one in inner.items()})
