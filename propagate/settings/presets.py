"""Presets: YAML files that name only what differs from the defaults, and single values changed on top of them."""

from __future__ import annotations

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
from propagate.settings.names import nearest
from propagate.settings.overrides import assign, flatten, long_form

DEFAULT_PRESET = "compact"


_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings and where each value came from.

    Attributes:
        settings: the result.
        origins: dotted key -> "default", "preset NAME" or "--set"; every key of the result is there.
    """

    settings: Settings
    origins: Mapping[str, str]


def preset_names() -> list[str]:
    """The presets that travel with the package, by name."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in _preset_folder().iterdir() if entry.name.endswith(".yaml")
    )


def preset_summary(name: str) -> str:
    """The first comment line of a shipped preset."""
    text: str = (_preset_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].lstrip("# ").strip()


def load_settings(preset: str | Path = DEFAULT_PRESET, overrides: Iterable[str] = ()) -> Settings:
    """Return the settings of a preset with single values changed; `load_with_origins` also says where each came from.

    Args:
        preset: name of a shipped preset or path of a YAML file.
        overrides: `section.key=value` each; the value is read as YAML (`null`, `0.2`, `true`, `[1, 2]`).

    Raises:
        UsageError: unknown preset, key or a value that does not fit, with the nearest known name or the allowed range.
    """
    return load_with_origins(preset, overrides).settings


def load_with_origins(preset: str | Path = DEFAULT_PRESET, overrides: Iterable[str] = ()) -> ResolvedSettings:
    """Return settings with the origin of each value. Arguments and errors as `load_settings`."""
    name, values = _read_preset(preset)
    origins = {key: f"preset {name}" for key, _ in flatten(values)}
    for override in overrides:
        origins |= dict.fromkeys((key for key, _ in flatten(assign(values, override))), "--set")
    settings = _validate(values, f"preset {name}")
    return ResolvedSettings(settings, {key: origins.get(key, "default") for key, _ in flatten(settings.model_dump())})


def _preset_folder() -> Any:
    inside = resources.files("propagate") / "configs"
    if inside.is_dir():
        return inside
    return Path(__file__).resolve().parents[2] / "configs"  # a checkout keeps them at the top


def _read_preset(preset: str | Path) -> tuple[str, dict[str, Any]]:
    path: Any = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if not path.exists():
            raise UsageError(
                f"--config {preset}: there is no such file.", f"Shipped presets: {', '.join(preset_names())}."
            )
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
            raise UsageError(f"{source}: unknown key {key}.", nearest(parts[-1], _siblings(parts))) from error
        raise UsageError(
            f"{source}: {key} = {_shown(first['input'])}: {first['msg']}.", allowed_values(Settings, parts)
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _siblings(parts: list[str]) -> list[str]:
    model: Any = Settings
    for part in parts[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
