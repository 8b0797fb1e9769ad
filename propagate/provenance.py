"""With what a result was made: every setting with its origin, the weights, and the versions that decide about it."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from propagate.errors import UsageError
from propagate.features import EXTRACTORS, extractor_options, wanted_weights
from propagate.features.device import computes_in_bfloat16, resolve_device
from propagate.features.fusion import PART_DEFAULTS, part_options
from propagate.features.networks.digests import fingerprint
from propagate.features.networks.local_files import files_in, named_files
from propagate.propagation.cpu.transfer import MOST_TOP_K, kernels
from propagate.settings import FeatureSettings, ResolvedSettings, Settings, nearest
from propagate.version import __version__
from propagate.weights.locating import version_of

# module -> distributions that provide it, the one we ask for first
DISTRIBUTIONS = {
    "torch": ("torch",),
    "diffusers": ("diffusers",),
    "transformers": ("transformers",),
    "numba": ("numba",),
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
    found = {key: Setting(_value(dump, key), origin) for key, origin in resolved.origins.items()}
    features = resolved.settings.features
    defaults = dict(_defaults("features", features.name, features.options))
    for place, part in enumerate(_parts(features)):
        prefix = f"features.parts.{place}"
        defaults |= {f"{prefix}.{key}": value for key, value in PART_DEFAULTS.items()}
        own = dict(_defaults(prefix, part["name"], part_options(part)))
        defaults |= {key: value for key, value in own.items() if key != f"{prefix}.device"}  # the fusion's own
    found |= {key: Setting(value, "default") for key, value in defaults.items() if key not in found}
    sections = list(dump)
    return dict(sorted(found.items(), key=lambda item: _order(item[0], sections)))


def _value(dump: Any, key: str) -> Any:
    return reduce(lambda values, part: values[int(part) if isinstance(values, list) else part], key.split("."), dump)


def _order(key: str, sections: list[str]) -> tuple[int, int]:
    """By section; parts of a fusion after its other options, one part after the other."""
    section, *rest = key.split(".")
    return sections.index(section), 1 + int(rest[1]) if len(rest) > 2 and rest[0] == "parts" else 0


def _parts(features: FeatureSettings) -> list[dict[str, Any]]:
    parts = features.options.get("parts") if features.name == "fusion" else None
    return [part for part in parts or () if isinstance(part, dict) and "name" in part]


def _defaults(prefix: str, name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    defaults = extractor_options(name)
    for option in options:
        if option not in defaults:
            raise UsageError(f"{prefix}.{option}: {name} has no such option.", nearest(option, defaults))
    for option, default in defaults.items():
        if default is not inspect.Parameter.empty:
            yield f"{prefix}.{option}", default


def extractors(features: FeatureSettings) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield prefix, name and options of the extractor and, of a fusion, of every part, at any depth."""
    waiting: list[tuple[str, str, dict[str, Any]]] = [("", features.name, dict(features.options))]
    for prefix, name, options in waiting:
        yield prefix, name, options
        parts = options.get("parts") if name == "fusion" else None
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict) and isinstance(part.get("name"), str):
                waiting.append((f"{prefix}parts.{place}.", part["name"], part_options(part)))


def local_weights(features: FeatureSettings) -> dict[str, str]:
    """Option -> fingerprint of the files that it names on this machine; those of the package under "weights".

    Every byte counts. Other weights, of a hub or the registry, are in `fetched_weights`.

    Raises:
        WeightsError: a file cannot be read.
    """
    found = {}
    for prefix, name, options in extractors(features):
        if name in EXTRACTORS:
            places = dict(named_files(options))
        else:
            defaults = {key: value for key, value in extractor_options(name).items() if key not in options}
            places = dict(named_files({**defaults, **options}, all_options=True))
        if name == "compact" and options.get("weights") is None:
            places["weights"] = Path(str(files("propagate") / "models" / "compact"))
        for option, place in places.items():
            if inside := files_in(place):
                found[f"{prefix}{option}"] = fingerprint(inside)
    return found


def fetched_weights(features: FeatureSettings) -> dict[str, str]:
    """Name of a model or repository -> its commit or digest, where that is known: a branch moves under one name.

    Raises:
        UsageError: an option that does not fit.
        WeightsError: see `version_of`.
    """
    found: dict[str, str] = {}
    for _, name, options in extractors(features):
        if name in EXTRACTORS and name != "fusion":
            found |= {one.name: version for one in wanted_weights(name, **options) if (version := version_of(one))}
    return found


def device_of(features: FeatureSettings) -> torch.device:
    """Return where features of these settings are computed.

    Raises:
        UsageError: no such extractor or device.
    """
    named = features.options.get("device", extractor_options(features.name).get("device", "cpu"))
    return resolve_device(str(named))


def device_record(device: torch.device) -> dict[str, Any]:
    """Return what tells devices apart by which results differ."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "bfloat16": computes_in_bfloat16(device),  # which decides what a dtype of "auto" is
    }


def depends_on_threads(settings: Settings) -> bool:
    """Whether results made with these settings differ in their last digits with the number of threads.

    They do not where a GPU computes the features, nor with `rgb` and `compact` on a CPU, as long as the transfer step
    is the compiled one. Baselines have no settings; they do not either.

    Raises:
        UsageError: no such extractor or device.
    """
    features, propagation = settings.features, settings.propagation
    if device_of(features).type != "cpu":
        return False
    same = features.name == "rgb" or (features.name == "compact" and not features.options.get("compile", False))
    return not same or propagation.top_k > MOST_TOP_K or kernels() is None


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
