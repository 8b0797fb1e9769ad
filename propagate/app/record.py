"""run.json: with what a run was made."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from propagate import __version__
from propagate.errors import UsageError
from propagate.features import extractor_options
from propagate.formats import settings_hash
from propagate.settings import ResolvedSettings, nearest
from propagate.types import FrameInfo, Label, Mask

# module -> distributions that provide it, the one we ask for first
DISTRIBUTIONS = {
    "torch": ("torch",),
    "diffusers": ("diffusers",),
    "av": ("av",),
    "decord": ("decord2", "decord", "eva-decord"),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "numpy": ("numpy",),
    "pillow": ("pillow",),
    "scipy": ("scipy",),
    "safetensors": ("safetensors",),
}


@dataclass(frozen=True)
class Setting:
    """One value and where it came from ("default", "preset NAME", "--set" or the option)."""

    value: Any
    origin: str


def all_settings(resolved: ResolvedSettings) -> dict[str, Setting]:
    """Dotted key -> value and origin, the extractor's own options with their defaults included.

    Raises:
        UsageError: no such extractor, or it has no such option.
    """
    dump = resolved.settings.model_dump()
    found = {
        key: Setting(reduce(lambda values, part: values[part], key.split("."), dump), origin)
        for key, origin in resolved.origins.items()
    }
    name = resolved.settings.features.name
    defaults = extractor_options(name)
    for option in resolved.settings.features.options:
        if option not in defaults:
            raise UsageError(f"features.{option}: {name} has no such option.", nearest(option, defaults))
    for option, default in defaults.items():
        if default is not inspect.Parameter.empty:
            found.setdefault(f"features.{option}", Setting(default, "default"))
    sections = list(dump)
    return dict(sorted(found.items(), key=lambda item: sections.index(item[0].partition(".")[0])))


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of those that decide about the result; None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "propagate": __version__}
    for name, distributions in DISTRIBUTIONS.items():
        found[name] = next((v for d in distributions if (v := _version(d)) is not None), None)
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def settings_record(resolved: ResolvedSettings) -> dict[str, Any]:
    """Every setting, where it came from, the seed, and a hash.

    The hash covers every setting, the extractor's defaults included: the same hash and the same input give the same
    output on the same kind of device.
    """
    settings = all_settings(resolved)
    values = {key: setting.value for key, setting in settings.items()}
    return {
        "settings": _nested(values),
        "origins": {key: setting.origin for key, setting in settings.items()},
        "settings_hash": settings_hash(values),
        "seed": values.get("features.seed"),
    }


def input_record(info: FrameInfo) -> dict[str, Any]:
    """The video and how it was read."""
    source = Path(info.source)
    return {
        "input": {
            "path": str(source.absolute()),
            "bytes": source.stat().st_size if source.is_file() else None,
            "width": info.width,
            "height": info.height,
            "frames": info.count,
            "rate": info.rate,
        },
        "reader": info.reader,
        "reader_notes": info.notes,
    }


def label_record(path: Path, label: Label, notes: tuple[str, ...]) -> dict[str, Any]:
    """The mask or the keypoints of the first frame, and how their file was understood."""
    held = {"objects": label.objects} if isinstance(label, Mask) else {"joints": label.names}
    return {"path": str(path.absolute()), **held, "notes": notes}


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return nested
