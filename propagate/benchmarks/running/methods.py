"""What is run on a data set: a preset or a baseline, with every setting that decides about its results."""

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

# name -> what carries the label, and what there is to know of how
BASELINES: Mapping[str, tuple[Carry, Mapping[str, Any]]] = {
    "static": (static, {"baseline": "static"}),
    "flow": (flow, {"baseline": "flow", "flow": "OpenCV DIS, medium"}),
}

_FILES = (".yaml", ".yml")
_kept: dict[str, FeatureExtractor] = {}  # the extractor that was built last, by its settings


@dataclass(frozen=True)
class Method:
    """Carries labels through clips. Can be pickled; its extractor is built in the process that needs it.

    Attributes:
        name: for tables and folders.
        settings: every resolved setting, dotted key -> value, and the fingerprints of weights that lie on this machine.
        origins: where each came from: "default", "preset NAME", "protocol", "--set", "--device", "baseline" or "file".
        settings_hash: of `settings`: the same hash and the same input give the same results.
        resolved: the settings of a preset; None for a baseline.
        given: where each of those came from, without the extractor's defaults.
        cache: folder of cached features and its limit in bytes; None: they are not kept. No part of `settings`: the
            results are the same.
    """

    name: str
    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    settings_hash: str
    resolved: Settings | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    cache: tuple[Path, int] | None = None

    @property
    def depends_on_threads(self) -> bool:
        """Whether the number of threads may change the last digits of its results; a baseline's it does not."""
        return self.resolved is not None and self._device is not None and depends_on_threads(self.resolved)

    @property
    def versions(self) -> dict[str, str | None]:
        """What runs it: see `provenance.versions` and, of a preset, `fetched_weights` and `device_record`."""
        weights = {} if self.resolved is None else fetched_weights(self.resolved.features)
        device = {} if self._device is None else device_record(self._device)
        return {**versions(), **weights, **{key: str(value) for key, value in device.items()}}

    @property
    def _device(self) -> torch.device | None:
        """Where its features are computed; None for a baseline, and where this machine has no such device."""
        with suppress(UsageError):
            return None if self.resolved is None else device_of(self.resolved.features)
        return None

    def prepare(self) -> None:
        """Build the extractor, where it is not the one that this process built last.

        Raises:
            UsageError: videowalk's codec with features of another stride than its; see also `build_extractor`.
            WeightsError, OutOfMemoryError: see `build_extractor`.
        """
        if self.resolved is None:
            return
        extractor = _extractor(self, self.resolved)
        if self.resolved.labels.keypoints.codec == "jhmdb" and extractor.stride != JHMDB_STRIDE:
            raise UsageError(
                f"--config {self.name}: its features have cells of {extractor.stride} pixels, and videowalk's poses "
                f"(labels.keypoints.codec = jhmdb) are those of cells of {JHMDB_STRIDE}.",
                f"Take features of stride {JHMDB_STRIDE} (features.up_ft_index, features.block) or --protocol strict.",
            )

    def carry(self, frames: Iterable[Frame], label: Label) -> Iterator[Prediction]:
        """One prediction per frame, in order.

        Args:
            frames: the clip.
            label: of its first frame.

        Raises:
            PropagateError: see `pipeline.track`.
        """
        if self.resolved is None:
            baseline, _ = BASELINES[self.settings["baseline"]]
            return baseline(frames, label)
        return track(frames, label, extractor=_extractor(self, self.resolved), settings=self.resolved)


def check_name(config: str | Path) -> None:
    """Tell a name that nothing has, before anything is read. Files are looked at by `load_method`.

    Raises:
        UsageError: neither a baseline nor a preset, with the nearest of both.
    """
    known = [*BASELINES, *preset_names()]
    if Path(config).suffix not in _FILES and str(config) not in known:
        raise UsageError(f"--config {config}: there is no such preset or baseline.", nearest(str(config), known))


def load_method(
    config: str | Path,
    overrides: Iterable[str] = (),
    *,
    protocol: Iterable[str] = (),
    device: str | None = None,
) -> Method:
    """The method of a name.

    Args:
        config: "static", "flow", the name of a preset or the path of a YAML file.
        overrides: the user's `section.key=value`, of a preset.
        protocol: overrides that the data set's protocol asks for; the user's go before them.
        device: of a preset's extractor; None: as the settings say.

    Raises:
        UsageError: unknown name, key or option, or a value that does not fit.
        WeightsError: weights that were named cannot be read.
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
    settings = {**{key: setting.value for key, setting in found.items()}, **files}
    origins = {**{key: setting.origin for key, setting in found.items()}, **dict.fromkeys(files, "file")}
    return Method(_stem(config), settings, origins, settings_hash(settings), resolved.settings, resolved.origins)


def load_methods(
    configs: Iterable[str | Path],
    overrides: Iterable[str] = (),
    *,
    protocol: Iterable[str] = (),
    device: str | None = None,
) -> tuple[Method, ...]:
    """Several methods, side by side; the overrides are for all presets among them.

    Raises:
        UsageError: as `load_method`; two of one name; overrides or a device where there is no preset.
        WeightsError: as `load_method`.
    """
    configs, overrides, protocol = list(configs), list(overrides), list(protocol)
    methods = tuple(load_method(config, overrides, protocol=protocol, device=device) for config in configs)
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"--config {twice[0]} is given twice.",
            "Results are stored under that name. To compare two variants of it, save one as a YAML file with a name "
            "of its own.",
        )
    given = [*(f"--set {override}" for override in overrides), *([] if device is None else [f"--device {device}"])]
    if given and all(method.resolved is None for method in methods):
        what = f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'}" if names else "existing results have"
        raise UsageError(f"{given[0]}: {what} no settings.", "Give it with a preset.")
    return methods


def fetch_weights(methods: Iterable[Method]) -> None:
    """Fetch the weights of all methods that are not on this machine, after one question; nothing offline.

    To be called in the process that starts others: those download nothing. Weights of other packages' extractors
    cannot be known before they are built; what these download is their own affair.

    Raises:
        UsageError: options that do not fit.
        WeightsError: they cannot be had, or nobody agreed to the download.
        InputError: the disk is full.
    """
    features = [method.resolved.features for method in methods if method.resolved is not None]
    obtain(wanted for one in features for wanted in wanted_weights(one.name, **one.options))


def named(method: Method, name: str) -> Method:
    """The same method under another name; its hash stays."""
    return replace(method, name=name)


def with_cache(method: Method, folder: Path, limit: int) -> Method:
    """The same method with features taken from a cache and kept there; a baseline has none.

    Raises:
        UsageError: the features are another label's with another label, and cannot be kept.
    """
    if method.resolved is None:
        return method
    if method.resolved.features.name == "prompt_attention":
        raise UsageError(
            "--cache: what prompt_attention reads of a frame depends on the first frame's label and is not kept.",
            "Leave it out.",
        )
    return replace(method, cache=(folder, limit))


def _stem(config: str | Path) -> str:
    path = Path(config)
    return path.stem if path.suffix in _FILES else str(config)


def _check_video(video: VideoSettings) -> None:
    for key in ("from_frame", "to_frame", "stride"):
        if getattr(video, key) != VideoSettings.model_fields[key].default:
            raise UsageError(
                f"video.{key} = {getattr(video, key)}: the data set says which frames are read.", "Leave it out."
            )


def _extractor(method: Method, settings: Settings) -> FeatureExtractor:
    key = f"{settings.features.model_dump_json()} {method.cache}"
    if key not in _kept:
        _kept.clear()  # two large models need not fit at once
        if method.cache is None:
            _kept[key] = build_extractor(settings.features.name, **settings.features.options)
        else:
            _kept[key] = CachedExtractor(ResolvedSettings(settings, method.given), FeatureCache(*method.cache))
    return _kept[key]
