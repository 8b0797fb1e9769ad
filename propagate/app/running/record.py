"""run.json: with what a run was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from propagate.features.installed import providers
from propagate.formats import settings_hash
from propagate.provenance import all_settings, fetched_weights, local_weights
from propagate.settings import ResolvedSettings
from propagate.threads import usual_threads
from propagate.types import FrameInfo, Label, Mask


def settings_record(resolved: ResolvedSettings) -> dict[str, Any]:
    """Every setting, where it came from, the seed, a hash, weights, and the package of an extractor that is not ours.

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
    """The video and how it was read; of pictures the name of each frame."""
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
    """Return how many threads torch has, and how many share out the transfer step.

    numba is not asked: its answer starts threads of its own and gives torch as many.
    """
    return {"torch": torch.get_num_threads(), "transfer": usual_threads()}


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
    return {section: _with_lists(values) for section, values in nested.items()}


def _with_lists(value: Any) -> Any:
    """Mappings with numbers for keys, the parts of a fusion, as the lists that they are in a preset."""
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(item) for key, item in value.items()}
    return list(inner.values()) if inner and all(key.isdecimal() for key in inner) else inner
