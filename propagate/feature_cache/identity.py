"""What decides about features beside the pictures, and what the program has to know of an extractor.

The identity is all feature settings, defaults included, but for the batch; the whole content of weights that were named
as files, and the commit or digest of those that were fetched; the kind of device; the versions of what computes; the
code of our extractors, and of other packages' every installed file.
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

from propagate.errors import PropagateError
from propagate.features import EXTRACTORS, FeatureExtractor
from propagate.features.anchoring import AnchoredExtractor
from propagate.features.extractor import EnsembleExtractor, FinerExtractor, SideBySideExtractor
from propagate.features.installed import package_digest
from propagate.files.atomic import atomic_path
from propagate.files.documents import read_json
from propagate.formats import settings_hash
from propagate.formats.output.run_record import json_text
from propagate.provenance import (
    all_settings,
    depends_on_threads,
    device_record,
    extractors,
    fetched_weights,
    local_weights,
    versions,
)
from propagate.settings import ResolvedSettings

_FILE = "extractor.json"
_COMPUTING = ("propagate", "torch", "diffusers", "transformers", "numba", "numpy")
# settings that change how much is done at a time, or where "auto" leads, which is told apart below
_NOT_IDENTITY = ("features.batch_size", "features.device")

_Side = Annotated[int, Field(ge=1, le=1 << 12)]
_Channels = Annotated[int, Field(ge=0, le=1 << 20)]


class Description(BaseModel):
    """What the program has to know of an extractor before, or instead of, building it; see the protocols."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    stride: _Side
    channels: Annotated[int, Field(ge=1, le=1 << 20)]
    multiple: _Side
    draws_per_pass: Annotated[int, Field(ge=1, le=1 << 20)] | None
    learns: bool
    finer_stride: _Side | None
    finer_channels: _Channels
    side_by_side: bool

    @model_validator(mode="after")
    def _finer_divides(self) -> Description:
        if self.finer_stride is not None and self.stride % self.finer_stride:
            raise ValueError("finer_stride does not divide stride")
        return self


def extractor_identity(resolved: ResolvedSettings, device: torch.device) -> dict[str, Any]:
    """Return all that decides about features beside the pictures, as JSON values.

    Args:
        resolved: settings; those of the features count.
        device: where the features are computed.

    Raises:
        UsageError: no such extractor or option.
        WeightsError: a file that is named cannot be read.
    """
    features, known = resolved.settings.features, versions()
    settings = {key: setting.value for key, setting in all_settings(resolved).items() if key.startswith("features.")}
    names = sorted({name for _, name, _ in extractors(features)})
    return {
        "settings": {key: value for key, value in settings.items() if key not in _NOT_IDENTITY},
        "weights": {**local_weights(features), **fetched_weights(features)},
        **device_record(device),
        "threads": torch.get_num_threads() if depends_on_threads(resolved.settings) else None,
        "versions": {name: known[name] for name in _COMPUTING},
        "code": own_code(),
        "packages": {name: package_digest(name) for name in names if name not in EXTRACTORS},
    }


@cache
def own_code() -> str:
    """Return a hash of our extractors' sources: a checkout's version does not tell them apart."""
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
    """Return what there is to know of an extractor that was built."""
    finer = (network.finer_stride, network.finer_channels) if isinstance(network, FinerExtractor) else (None, 0)
    return Description(
        stride=network.stride,
        channels=network.channels,
        multiple=network.multiple,
        draws_per_pass=network.draws_per_pass if isinstance(network, EnsembleExtractor) else None,
        learns=isinstance(network, AnchoredExtractor),
        finer_stride=finer[0],
        finer_channels=finer[1],
        side_by_side=isinstance(network, SideBySideExtractor) and network.side_by_side,
    )


def read_description(folder: Path, identity: Mapping[str, Any]) -> Description | None:
    """Return the description in a folder; None where there is none for this identity, or it is damaged or edited."""
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
    """Write the description of an extractor with what was hashed.

    Raises:
        InputError: it cannot be written.
    """
    values = _plain({**identity, "extractor": known.model_dump()})
    with atomic_path(folder / _FILE) as temporary:
        temporary.write_text(json_text({**values, "checksum": _checksum(values)}), encoding="utf-8")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _checksum(values: Mapping[str, Any]) -> str:
    return settings_hash(values)[:16]
