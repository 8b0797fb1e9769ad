"""Methods to run on a data set: presets and baselines with all settings that affect their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from propagate.benchmarks.running.baselines import flow, static
from propagate.errors import UsageError
from propagate.feature_cache.cached_extractor import CachedExtractor
from propagate.feature_cache.store import FeatureCache
from propagate.features import FeatureExtractor, build_extractor, wanted_weights
from propagate.formats import settings_hash
from propagate.labels.compat.jhmdb import STRIDE as JHMDB_STRIDE
from propagate.pipeline import track
from propagate.provenance import (
    all_settings,
    depends_on_threads,
    device_of,
    device_record,
    fetched_weights,
    local_weights,
    versions,
)
from propagate.settings import ResolvedSettings, Settings, VideoSettings, load_with_origins, nearest, preset_names
from propagate.types import Frame, Label, Prediction
from propagate.weights.locating import obtain

Carry = Callable[[Iterable[Frame], Label], Iterator[Prediction]]

# name -> function and settings
BASELINES: Mapping[str, tuple[Carry, Mapping[str, Any]]] = {
    "static": (static, {"baseline": "static"}),
    "flow": (flow, {"baseline": "flow", "flow": "OpenCV DIS, medium"}),
}

_FILES = (".yaml", ".yml")
_built: dict[str, FeatureExtractor] = {}  # the last extractor, by its settings


@dataclass(frozen=True)
class Method:
    """A preset or baseline that carries labels through clips. Can be pickled; each process builds its own extractor."""

    name: str  # name for tables and folders
    settings: Mapping[str, Any]  # dotted key -> value of all resolved settings, and digests of local weights
    # dotted key -> "default", "preset NAME", "protocol", "--set", "--device", "baseline" or "file"
    origins: Mapping[str, str]
    settings_hash: str  # hash of `settings`; the same hash and input give the same results
    resolved: Settings | None = None  # settings of a preset; None for a baseline
    given: Mapping[str, str] = field(default_factory=dict)  # origins without those of the extractor's defaults
    # folder of cached features and its limit in bytes; None: no cache. It does not affect results.
    cache: tuple[Path, int] | None = None

    @property
    def depends_on_threads(self) -> bool:
        """Whether the number of threads may change last digits of results; never for a baseline."""
        return self.resolved is not None and self._device is not None and depends_on_threads(self.resolved)

    @property
    def versions(self) -> dict[str, str | None]:
        """`provenance.versions` and, for a preset, `fetched_weights` and `device_record`."""
        weights = {} if self.resolved is None else fetched_weights(self.resolved.features)
        device = {} if self._device is None else device_record(self._device)
        return {**versions(), **weights, **{key: str(value) for key, value in device.items()}}

    @property
    def _device(self) -> torch.device | None:
        """Device of the features; None for a baseline, and where this machine lacks the device."""
        with suppress(UsageError):
            return None if self.resolved is None else device_of(self.resolved.features)
        return None

    def prepare(self) -> None:
        """Build the extractor unless this process has just built it; see `build_extractor`.

        Raises:
            UsageError: the stride does not match videowalk's codec.
        """
        if self.resolved is None:
            return
        extractor = _extractor(self, self.resolved)
        if self.resolved.labels.keypoints.codec == "jhmdb" and extractor.stride != JHMDB_STRIDE:
            raise UsageError(
                f"--config {self.name}: its features have cells of {extractor.stride} pixels, but videowalk's codec "
                f"(labels.keypoints.codec = jhmdb) needs cells of {JHMDB_STRIDE}.",
                f"Use features of stride {JHMDB_STRIDE} (features.up_ft_index, features.block) or --protocol strict.",
            )

    def carry(self, frames: Iterable[Frame], label: Label) -> Iterator[Prediction]:
        """Carry the label of the first frame: one prediction per frame, in order; see `pipeline.track`."""
        if self.resolved is None:
            return BASELINES[self.settings["baseline"]][0](frames, label)
        return track(frames, label, extractor=_extractor(self, self.resolved), settings=self.resolved)


def check_name(config: str | Path) -> None:
    """Raise a UsageError with the nearest name where this is no baseline, preset or YAML file."""
    known = [*BASELINES, *preset_names()]
    if Path(config).suffix not in _FILES and str(config) not in known:
        raise UsageError(f"--config {config}: there is no such preset or baseline.", nearest(str(config), known))


def load_method(
    config: str | Path, overrides: Iterable[str] = (), *, protocol: Iterable[str] = (), device: str | None = None
) -> Method:
    """Load a baseline or preset.

    Args:
        config: "static", "flow", the name of a preset or the path of a YAML file.
        overrides: the user's `section.key=value` for a preset.
        protocol: overrides of the data set's protocol; those of the user take precedence.
        device: device of a preset's extractor; None: from the settings.

    Raises:
        UsageError: unknown name, key or option, or an invalid value.
        WeightsError: weights cannot be read.
    """
    check_name(config)
    if str(config) in BASELINES:
        _, settings = BASELINES[str(config)]
        return Method(str(config), settings, dict.fromkeys(settings, "baseline"), settings_hash(settings))
    given = [(override, "protocol") for override in protocol] + [(override, "--set") for override in overrides]
    if device is not None:
        given.append((f"features.device={device}", "--device"))
    resolved = load_with_origins(config, [override for override, _ in given])
    sources = {override.partition("=")[0]: origin for override, origin in given}
    origins = {key: sources.get(key, origin) for key, origin in resolved.origins.items()}
    _check_video(resolved.settings.video)
    found = all_settings(ResolvedSettings(resolved.settings, origins))
    weights = local_weights(resolved.settings.features)
    files = {f"features.{option} (files)": digest for option, digest in weights.items()}
    settings = {key: setting.value for key, setting in found.items()} | files
    origins = {key: setting.origin for key, setting in found.items()} | dict.fromkeys(files, "file")
    name = Path(config).stem if Path(config).suffix in _FILES else str(config)
    return Method(name, settings, origins, settings_hash(settings), resolved.settings, resolved.origins)


def load_methods(
    configs: Iterable[str | Path],
    overrides: Iterable[str] = (),
    *,
    protocol: Iterable[str] = (),
    device: str | None = None,
) -> tuple[Method, ...]:
    """Load several methods with different names; overrides apply to all presets. See `load_method`."""
    configs, overrides, protocol = list(configs), list(overrides), list(protocol)
    methods = tuple(load_method(config, overrides, protocol=protocol, device=device) for config in configs)
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"--config {twice[0]} is given twice.",
            "Results are stored under that name. To compare two variants, save one as a YAML file with another name.",
        )
    given = [*(f"--set {override}" for override in overrides), *([] if device is None else [f"--device {device}"])]
    if given and all(method.resolved is None for method in methods):
        what = f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'}" if names else "existing results have"
        raise UsageError(f"{given[0]}: {what} no settings.", "Give it with a preset.")
    return methods


def fetch_weights(methods: Iterable[Method]) -> None:
    """Download missing weights of all methods after one confirmation; nothing offline.

    Call this before starting worker processes, which download nothing. Extractors of other packages handle their own
    weights.
    """
    features = [method.resolved.features for method in methods if method.resolved is not None]
    obtain(wanted for one in features for wanted in wanted_weights(one.name, **one.options))


def with_cache(method: Method, folder: Path, limit: int) -> Method:
    """Return the method with a feature cache; a baseline needs none.

    Raises:
        UsageError: the features depend on the label and cannot be cached.
    """
    if method.resolved is None:
        return method
    if method.resolved.features.name == "prompt_attention":
        raise UsageError(
            "--cache: the features of prompt_attention depend on the first frame's label and cannot be cached.",
            "Remove it.",
        )
    return replace(method, cache=(folder, limit))


def _check_video(video: VideoSettings) -> None:
    for key in ("from_frame", "to_frame", "stride"):
        if (value := getattr(video, key)) != VideoSettings.model_fields[key].default:
            raise UsageError(f"video.{key} = {value}: the data set determines the frames.", "Remove the setting.")


def _extractor(method: Method, settings: Settings) -> FeatureExtractor:
    key = f"{settings.features.model_dump_json()} {method.cache}"
    if key not in _built:
        _built.clear()  # two large models need not fit at once
        if method.cache is None:
            _built[key] = build_extractor(settings.features.name, **settings.features.options)
        else:
            _built[key] = CachedExtractor(ResolvedSettings(settings, method.given), FeatureCache(*method.cache))
    return _built[key]
