"""The record of a run, run.json: settings, versions, input."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from propagate.features.plugins import providers
from propagate.formats import settings_hash
from propagate.provenance import all_settings, fetched_weights, local_weights
from propagate.settings import ResolvedSettings
from propagate.threads import usual_threads
from propagate.types import FrameInfo


def settings_record(resolved: ResolvedSettings) -> dict[str, Any]:
    """Return every setting with its origin, the seed, a hash, the weights, and the package of a foreign extractor.

    The hash covers every setting, the extractor's defaults included: the same hash, weights, package and input give the
    same output on the same kind of device.
    """
    features = resolved.settings.features
    settings = all_settings(resolved)
    values = {key: setting.value for key, setting in settings.items()}
    return {
        "settings": _nested(values),
        "origins": {key: setting.origin for key, setting in settings.items()},
        "settings_hash": settings_hash(values),
        "seed": values.get("features.seed"),
        "weights": {**local_weights(features), **fetched_weights(features)},
        **({"extractor_package": package} if (package := providers(features.name)) else {}),
    }


def input_record(info: FrameInfo) -> dict[str, Any]:
    """Return the video, its reader, and the names of pictures."""
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
        "frame_names": None if info.names is None else dict(zip(info.indices or (), info.names, strict=False)),
        "reader": info.reader,
        "reader_notes": info.notes,
    }


def threads() -> dict[str, int]:
    """Return the number of threads of torch and of the transfer step.

    numba is not asked: its answer starts threads of its own and gives torch as many.
    """
    return {"torch": torch.get_num_threads(), "transfer": usual_threads()}


def command_line() -> str:
    """Return the command as the user typed it."""
    return shlex.join(["propagate", *sys.argv[1:]])


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return {section: _with_lists(values) for section, values in nested.items()}


def _with_lists(value: Any) -> Any:
    """Turn mappings with numeric keys, the parts of a fusion, into lists as in a preset."""
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(item) for key, item in value.items()}
    return list(inner.values()) if inner and all(key.isdecimal() for key in inner) else inner
