"""Presets: YAML files of the values that differ from the defaults, with single values overridden on top."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from propagate.errors import UsageError
from propagate.files.documents import parse_yaml, read_text
from propagate.settings.checks import allowed_values
from propagate.settings.model import Settings
from propagate.settings.overrides import assign, flatten, long_form

DEFAULT_PRESET = "compact"
_MAX_SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings with the origin of each value."""

    settings: Settings
    origins: Mapping[str, str]  # dotted key -> "default", "preset NAME" or "--set", for every key


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name most similar to `name`, or list all, as a sentence."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {match[0]}?" if match else f"Known: {', '.join(known)}."


def preset_names() -> list[str]:
    """Return the names of the presets in the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _preset_folder().iterdir() if file.name.endswith(".yaml"))


def preset_summary(name: str) -> str:
    """Return the first comment line of a preset in the package."""
    text: str = (_preset_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].lstrip("# ").strip()


def load_settings(preset: str | Path = DEFAULT_PRESET, overrides: Iterable[str] = ()) -> Settings:
    """Load the settings of a preset and override single values.

    Args:
        preset: name of a preset in the package, or path of a YAML file.
        overrides: strings `section.key=value`; the value is read as YAML (`null`, `0.2`, `true`, `[1, 2]`).

    Raises:
        UsageError: unknown preset or key, or an invalid value; with the nearest known name or the allowed range.
    """
    return load_with_origins(preset, overrides).settings


def load_with_origins(preset: str | Path = DEFAULT_PRESET, overrides: Iterable[str] = ()) -> ResolvedSettings:
    """Load settings with the origin of each value. Arguments and errors as `load_settings`."""
    name, values = _read_preset(preset)
    origins = {key: f"preset {name}" for key, _ in flatten(values)}
    for override in overrides:
        origins |= dict.fromkeys((key for key, _ in flatten(assign(values, override))), "--set")
    settings = _validate(values, f"preset {name}")
    return ResolvedSettings(settings, {key: origins.get(key, "default") for key, _ in flatten(settings.model_dump())})


def _preset_folder() -> Any:
    installed = resources.files("propagate") / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "configs"  # of a checkout


def _read_preset(preset: str | Path) -> tuple[str, dict[str, Any]]:
    path: Any = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if not path.exists():
            names = ", ".join(preset_names())
            raise UsageError(f"--config {preset}: there is no such file.", f"Shipped presets: {names}.")
        text = read_text(path, "preset", UsageError)
    elif str(preset) in preset_names():
        path = _preset_folder() / f"{preset}.yaml"
        text = path.read_text(encoding="utf-8")
    else:
        raise UsageError(f"--config {preset}: there is no such preset.", nearest(str(preset), preset_names()))
    values = parse_yaml(text, f"The preset {preset}", UsageError)
    if values is None:
        raise UsageError(f"--config {preset}: there are no settings in it.", "For the default ones leave it out.")
    if not isinstance(values, dict):
        raise UsageError(f"--config {preset}: not a mapping of sections.", "See `propagate config show`.")
    if "features" in values:
        values["features"] = long_form(values["features"])
    return path.name.removesuffix(".yaml"), values


def _validate(values: dict[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        key = ".".join(parts)
        if first["type"] == "extra_forbidden":
            model: Any = Settings
            for part in parts[:-1]:
                model = model.model_fields[part].annotation
            raise UsageError(f"{source}: unknown key {key}.", nearest(parts[-1], model.model_fields)) from error
        value = repr(first["input"])
        value = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}..."
        raise UsageError(f"{source}: {key} = {value}: {first['msg']}.", allowed_values(Settings, parts)) from error
