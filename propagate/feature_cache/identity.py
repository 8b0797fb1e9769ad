"""The identity of an extractor, which determines its features, and its description.

The identity consists of all feature settings but the batch size, with defaults; the content of weights given as files
and the commit or digest of downloaded ones; the kind of device; the versions of the libraries; the code of our
extractors, and every installed file of other packages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from propagate import provenance
from propagate.errors import PropagateError
from propagate.features import EXTRACTORS, FeatureExtractor
from propagate.features.anchoring import AnchoredExtractor
from propagate.features.extractor import EnsembleExtractor, FinerExtractor, SideBySideExtractor
from propagate.features.plugins import package_digest
from propagate.files.atomic import atomic_path
from propagate.files.documents import read_json
from propagate.formats import settings_hash
from propagate.formats.output.run_record import json_text
from propagate.settings import ResolvedSettings

_FILE = "extractor.json"
_COMPUTING = ("propagate", "torch", "diffusers", "transformers", "numba", "numpy")
_NOT_IDENTITY = ("features.batch_size", "features.device")  # `device_record` resolves "auto"
_Side = Annotated[int, Field(ge=1, le=1 << 12)]
_Count = Annotated[int, Field(ge=1, le=1 << 20)]


class Description(BaseModel):
    """Attributes of an extractor, see the protocols, that the program needs without building it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    stride: _Side
    channels: _Count
    multiple: _Side
    draws_per_pass: _Count | None
    learns: bool
    finer_stride: _Side | None
    finer_channels: Annotated[int, Field(ge=0, le=1 << 20)]
    side_by_side: bool

    @model_validator(mode="after")
    def _finer_divides(self) -> Description:
        if self.finer_stride is not None and self.stride % self.finer_stride:
            raise ValueError("finer_stride does not divide stride")
        return self


def extractor_identity(resolved: ResolvedSettings, device: torch.device) -> dict[str, Any]:
    """Return the identity of the extractor of these settings on this device, as JSON values. Errors as `provenance`."""
    features, installed = resolved.settings.features, provenance.versions()
    settings = {key: one.value for key, one in provenance.all_settings(resolved).items() if key.startswith("features.")}
    names = sorted({name for _, name, _ in provenance.extractors(features)})
    return {
        "settings": {key: value for key, value in settings.items() if key not in _NOT_IDENTITY},
        "weights": {**provenance.local_weights(features), **provenance.fetched_weights(features)},
        **provenance.device_record(device),
        "threads": torch.get_num_threads() if provenance.depends_on_threads(resolved.settings) else None,
        "versions": {name: installed[name] for name in _COMPUTING},
        "code": own_code(),
        "packages": {name: package_digest(name) for name in names if name not in EXTRACTORS},
    }


@cache
def own_code() -> str:
    """Return a hash of our extractors' sources, which change in a checkout without a new version."""
    digest = hashlib.sha256()
    for name, content in _sources(files("propagate.features")):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _sources(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}", entry.read_bytes()


def describe(network: FeatureExtractor) -> Description:
    """Return the description of an extractor."""
    return Description(
        stride=network.stride,
        channels=network.channels,
        multiple=network.multiple,
        draws_per_pass=network.draws_per_pass if isinstance(network, EnsembleExtractor) else None,
        learns=isinstance(network, AnchoredExtractor),
        finer_stride=network.finer_stride if isinstance(network, FinerExtractor) else None,
        finer_channels=network.finer_channels if isinstance(network, FinerExtractor) else 0,
        side_by_side=isinstance(network, SideBySideExtractor) and network.side_by_side,
    )


def read_description(folder: Path, identity: Mapping[str, Any]) -> Description | None:
    """Read the description in a folder; None if it is missing, damaged, edited or has another identity."""
    try:
        values = read_json(folder / _FILE)
    except PropagateError:
        return None
    if not isinstance(values, dict) or values.pop("checksum", None) != _checksum(values):
        return None
    if {key: value for key, value in values.items() if key != "extractor"} != _plain(identity):
        return None
    try:
        return Description.model_validate(values.get("extractor"))
    except ValidationError:
        return None


def write_description(folder: Path, identity: Mapping[str, Any], known: Description) -> None:
    """Write the description of an extractor with its identity. InputError: it cannot be written."""
    values = _plain({**identity, "extractor": known.model_dump()})
    with atomic_path(folder / _FILE) as temporary:
        temporary.write_text(json_text({**values, "checksum": _checksum(values)}), encoding="utf-8")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(values, default=str)))


def _checksum(values: Mapping[str, Any]) -> str:
    return settings_hash(values)[:16]
