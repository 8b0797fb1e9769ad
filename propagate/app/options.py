"""Shared options, groups of options, and `command`, which turns a function into a typer command."""

# Annotations are evaluated here: `command` reads them.
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from propagate.app.terminal.console import reporting
from propagate.errors import UsageError
from propagate.weights.consent import CONSENT

if TYPE_CHECKING:
    from propagate.feature_cache.store import FeatureCache
    from propagate.settings import ResolvedSettings

FRAMES, SETTINGS, RUNNING, OUTPUT, MESSAGES = "Frames", "Settings", "Running", "Output", "Messages"


def option(*names: str, help: str, panel: str | None = None, metavar: str | None = None, **more: Any) -> Any:
    """Return a typer option that shows no default."""
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, **{"show_default": False, **more})


def _set_variable(name: str, value: str) -> Callable[[bool], bool]:
    """Return a callback that sets an environment variable while options are parsed.

    huggingface_hub reads its variable once, during its import; worker processes inherit both.
    """

    def set_variable(given: bool) -> bool:
        if given:
            os.environ[name] = value
        return given

    return set_variable


Reader = Literal["auto", "decord", "pyav", "folder"]

Video = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="Video file, folder of pictures or one picture.", show_default=False)
]
ResizeMask = Annotated[bool, option("--resize-mask", help="Scale the mask to the frame's size.")]
Harden = Annotated[bool, option("--harden", help="Cut soft edges at the nearest flat color.")]
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
    option(
        "--offline",
        callback=_set_variable("HF_HUB_OFFLINE", "1"),
        help="Download nothing; use weights on this machine.",
        panel=SETTINGS,
    ),
]
Yes = Annotated[
    bool,
    option(
        "--yes", "-y", callback=_set_variable(CONSENT, "yes"), help="Download weights without asking.", panel=SETTINGS
    ),
]
Overwrite = Annotated[bool, option("--overwrite", help="Write into a folder that is not empty.", panel=OUTPUT)]
Quiet = Annotated[bool, option("--quiet", "-q", help="Print errors only.", panel=MESSAGES)]
Verbose = Annotated[
    int, option("--verbose", "-v", count=True, metavar="", help="Print more; -vv: tracebacks too.", panel=MESSAGES)
]


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """Return an option without a value."""
    return option(name, help=help, panel=panel)


def count(help: str, panel: str | None = None, *, min: int = 1, **more: Any) -> Any:
    """Return an option for a number."""
    return option(min=min, metavar="N", help=help, panel=panel, **more)


def configs_option(help: str) -> Any:
    """Return a repeatable `-c/--config`."""
    return option("--config", "-c", metavar="NAME_OR_FILE", help=help, panel=SETTINGS)


def output_option(default: str) -> Any:
    """Return `-o/--output`."""
    return option("--output", "-o", metavar="DIR", help=f"Write results here. \\[default: {default}]", panel=OUTPUT)


@dataclass(frozen=True)
class Frames:
    """The range of frames, and the reader."""

    from_frame: Annotated[int | None, count("Start at this frame.", FRAMES, min=0)] = None
    to_frame: Annotated[int | None, count("Stop before this frame.", FRAMES)] = None
    stride: Annotated[int | None, count("Read every N-th frame.", FRAMES)] = None
    reader: Annotated[Reader | None, option("--reader", help="Video reader. \\[default: auto]", panel=FRAMES)] = None
    strict: Annotated[bool, flag("--strict", "Fail if the video ends early.", FRAMES)] = False


@dataclass(frozen=True)
class Weights:
    """Permission to download weights."""

    offline: Offline = False
    yes: Yes = False


@dataclass(frozen=True)
class Changes:
    """Changes to presets."""

    assignments: Assignments = None
    device: Device = None
    max_memory: MaxMemory = None

    @property
    def with_memory(self) -> list[str]:
        """`--set` with `--max-memory` as one more assignment."""
        size = [] if self.max_memory is None else [f"max_memory={json.dumps(self.max_memory)}"]
        return [*(self.assignments or ()), *size]

    def resolve(
        self, config: str | None = None, frames: Frames | None = None, *, no_overlay: bool = False
    ) -> "ResolvedSettings":
        """Return the settings of a preset, changed by `--set` and then by the other options."""
        from propagate.settings import DEFAULT_PRESET, ResolvedSettings, load_with_origins

        options: dict[str, tuple[str, Any]] = {
            f"--{name.replace('_', '-')}": (f"video.{name}", value) for name, value in vars(frames or Frames()).items()
        }
        options["--device"] = "features.device", self.device
        options["--max-memory"] = "max_memory", self.max_memory
        given = {name: option for name, option in options.items() if option[1] is not None and option[1] is not False}
        if no_overlay:
            given["--no-overlay"] = "output.overlay", False
        changes = [f"{key}={json.dumps(value)}" for key, value in given.values()]
        resolved = load_with_origins(config or DEFAULT_PRESET, [*(self.assignments or ()), *changes])
        origins = {**resolved.origins, **{key: name for name, (key, _) in given.items()}}
        return ResolvedSettings(resolved.settings, origins)


NO_CHANGES = Changes()


@dataclass(frozen=True)
class Preset:
    """A preset and its changes."""

    config: Config = None
    changes: Changes = NO_CHANGES


@dataclass(frozen=True)
class Cache:
    """The feature cache."""

    cache: Annotated[Path | None, option(metavar="DIR", help="Directory for cached features.", panel=SETTINGS)] = None
    cache_size: Annotated[
        str | None, option(metavar="SIZE", help="Size limit of the cache. \\[default: 20GB]", panel=SETTINGS)
    ] = None

    def open(self) -> "FeatureCache | None":
        """Return the cache, or None without --cache."""
        if self.cache is None:
            if self.cache_size is not None:
                raise UsageError("--cache-size needs a folder.", "Name one with --cache.")
            return None
        from propagate.feature_cache.store import DEFAULT_CACHE_BYTES, FeatureCache  # with torch, which takes seconds
        from propagate.settings import memory_size

        limit = DEFAULT_CACHE_BYTES if self.cache_size is None else memory_size(self.cache_size, "--cache-size")
        return FeatureCache(self.cache, limit)


@dataclass(frozen=True)
class Run:
    """The options that `segment` and `track` share."""

    frames: Frames
    preset: Preset
    cache: Cache
    weights: Weights
    no_overlay: Annotated[bool, flag("--no-overlay", "Write no annotated video.", OUTPUT)] = False
    overwrite: Overwrite = False

    def resolve(self) -> "ResolvedSettings":
        """Return the settings; see `Changes.resolve`."""
        return self.preset.changes.resolve(self.preset.config, self.frames, no_overlay=self.no_overlay)


def command(act: Callable[..., int | None], **parts: Callable[..., Any]) -> Callable[..., None]:
    """Return `act` as a typer command with `--quiet` and `--verbose`.

    `act(terminal, ...)` gets a `Terminal`, and returns the exit code or None. Each further parameter is an option, or a
    group of options: a dataclass, whose fields are options or groups. Its docstring is the help text.

    A function in `parts` makes a parameter of `act` from options of its own; its docstring is then the help text.
    """
    groups = {
        name: parameter.replace(annotation=parts.get(name, parameter.annotation))
        for name, parameter in list(inspect.signature(act).parameters.items())[1:]
    }

    def run(**given: Any) -> None:
        with reporting(quiet=given.pop("quiet"), verbose=given.pop("verbose")) as terminal:
            order = sorted(groups, key=lambda name: name in parts)  # check options before reading data
            if code := act(terminal, **{name: _value(groups[name], given) for name in order}):
                raise typer.Exit(code)

    options = [one for group in groups.values() for one in _options(group)]
    for name, kind, default in (("quiet", Quiet, False), ("verbose", Verbose, 0)):
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__doc__ = next((part.__doc__ for part in parts.values()), act.__doc__)
    run.__name__ = act.__name__
    return run


def _fields(group: inspect.Parameter) -> list[inspect.Parameter] | None:
    """Return the parameters of a group of options; None for a single option."""
    kind = group.annotation
    is_group = is_dataclass(kind) or inspect.isfunction(kind)
    return list(inspect.signature(kind).parameters.values()) if is_group else None


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if (fields := _fields(parameter)) is None:
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    return [one for field in fields for one in _options(field)]


def _value(parameter: inspect.Parameter, given: dict[str, Any]) -> Any:
    if (fields := _fields(parameter)) is None:
        return given[parameter.name]
    return parameter.annotation(**{field.name: _value(field, given) for field in fields})
