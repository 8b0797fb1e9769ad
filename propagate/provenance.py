"""The provenance of a result: every setting with its origin, the weights, and the versions that affect it."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from propagate.errors import UsageError
from propagate.features import EXTRACTORS, extractor_options, wanted_weights
from propagate.features.device import computes_in_bfloat16, resolve_device
from propagate.features.fusion import PART_DEFAULTS, part_options
from propagate.features.networks.local_files import files_in, fingerprint, named_files
from propagate.propagation.cpu.transfer import MOST_TOP_K, kernels
from propagate.settings import FeatureSettings, ResolvedSettings, Settings, nearest
from propagate.settings.overrides import flatten
from propagate.version import __version__
from propagate.weights.locating import version_of

# library -> distributions that provide it, our dependency first
DISTRIBUTIONS = {
    **{name: (name,) for name in ("torch", "diffusers", "transformers", "numba", "av")},
    "decord": ("decord2", "decord", "eva-decord"),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    **{name: (name,) for name in ("numpy", "pillow", "scipy", "safetensors")},
}


@dataclass(frozen=True)
class Setting:
    """A value and its origin: "default", "preset NAME", "--set" or the option."""

    value: Any
    origin: str


def all_settings(resolved: ResolvedSettings) -> dict[str, Setting]:
    """Return dotted key -> value and origin, with all extractor options. Raises UsageError for an unknown one."""
    dump, features = resolved.settings.model_dump(), resolved.settings.features
    values = dict(flatten(dump))
    found = {key: Setting(values[key], origin) for key, origin in resolved.origins.items()}
    defaults = dict(_defaults("features", features.name, features.options))
    parts = features.options.get("parts") if features.name == "fusion" else None
    for place, part in enumerate(part for part in parts or () if isinstance(part, dict) and "name" in part):
        prefix = f"features.parts.{place}"
        defaults |= {f"{prefix}.{key}": value for key, value in PART_DEFAULTS.items()}
        own = dict(_defaults(prefix, part["name"], part_options(part)))
        defaults |= {key: value for key, value in own.items() if key != f"{prefix}.device"}  # the fusion sets it
    found |= {key: Setting(value, "default") for key, value in defaults.items() if key not in found}
    sections = list(dump)
    return dict(sorted(found.items(), key=lambda item: _order(item[0], sections)))


def _order(key: str, sections: list[str]) -> tuple[int, int]:
    """Sort by section; parts of a fusion after its other options."""
    section, *rest = key.split(".")
    return sections.index(section), 1 + int(rest[1]) if len(rest) > 2 and rest[0] == "parts" else 0


def _defaults(prefix: str, name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    defaults = extractor_options(name)
    for option in options:
        if option not in defaults:
            raise UsageError(f"{prefix}.{option}: {name} has no such option.", nearest(option, defaults))
    for option, default in defaults.items():
        if default is not inspect.Parameter.empty:
            yield f"{prefix}.{option}", default


def extractors(features: FeatureSettings) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield prefix, name and options of the extractor and of all parts of a fusion, at any depth."""
    waiting: list[tuple[str, str, dict[str, Any]]] = [("", features.name, dict(features.options))]
    for prefix, name, options in waiting:
        yield prefix, name, options
        parts = options.get("parts") if name == "fusion" else None
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict) and isinstance(part.get("name"), str):
                waiting.append((f"{prefix}parts.{place}.", part["name"], part_options(part)))


def local_weights(features: FeatureSettings) -> dict[str, str]:
    """Return option -> fingerprint of its local files, every byte; the package's own files under "weights".

    `fetched_weights` covers weights of a hub or the registry. Raises WeightsError if a file cannot be read.
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
    """Return name of a model or repository -> its commit or digest, if known. Errors as `version_of`."""
    found: dict[str, str] = {}
    for _, name, options in extractors(features):
        if name in EXTRACTORS and name != "fusion":
            found |= {one.name: version for one in wanted_weights(name, **options) if (version := version_of(one))}
    return found


def device_of(features: FeatureSettings) -> torch.device:
    """Return the device of these features. Raises UsageError: unknown extractor or device."""
    named = features.options.get("device", extractor_options(features.name).get("device", "cpu"))
    return resolve_device(str(named))


def device_record(device: torch.device) -> dict[str, Any]:
    """Return the properties of a device that affect results."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "bfloat16": computes_in_bfloat16(device),  # determines a dtype of "auto"
    }


def depends_on_threads(settings: Settings) -> bool:
    """Return whether the last digits of results depend on the number of threads.

    They do not if a GPU computes the features, or with `rgb` and `compact` on a CPU and the compiled transfer step.
    """
    features, propagation = settings.features, settings.propagation
    if device_of(features).type != "cpu":
        return False
    same = features.name == "rgb" or (features.name == "compact" and not features.options.get("compile", False))
    return not same or propagation.top_k > MOST_TOP_K or kernels() is None


def versions() -> dict[str, str | None]:
    """Return versions of Python, this package and the libraries that affect results; None if one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "propagate": __version__}
    for name, distributions in DISTRIBUTIONS.items():
        found[name] = None
        for distribution in reversed(distributions):
            with suppress(PackageNotFoundError):
                found[name] = version(distribution)
    return found
