"""Locate model weights on this machine, or download them. Nothing else of this package uses the network.

The first match wins: the named path, the local caches, then the model's sources in order. Downloads are checked against
known digests. Weights from the hub lie in huggingface_hub's cache (HF_HOME), others in `XDG_CACHE_HOME/dift-propagate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from propagate.errors import UsageError, WeightsError
from propagate.weights import hub
from propagate.weights.consent import CONSENT, are_forbidden, ask, is_offline, may_download
from propagate.weights.download import DownloadError, OnProgress, download, recorded_digest
from propagate.weights.download import cache_folder as cache_folder
from propagate.weights.registry import HubSource, Source, UrlSource
from propagate.weights.request import Wanted as Wanted  # callers import it from here
from propagate.weights.request import find_model


@dataclass(frozen=True)
class FileCheck:
    """The result of checking one file: `problem` is empty if it is right, `is_known` if there is a digest."""

    path: Path
    problem: str
    is_known: bool


def locate(
    model: str,
    *,
    weights: str | Path | None = None,
    revision: str | None = None,
    offline: bool | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Return the folder or file of a model's weights; download it if it is missing.

    Args:
        model: a name in `MODELS`.
        weights: path or hub repository ("owner/name") with the same files; None: the model's own sources.
        revision: branch, tag or commit of the hub repository; None: the registry's, or "main" for a named repository.
        offline: search this machine only; None: as HF_HUB_OFFLINE says.
        on_progress: called during downloads from plain URLs with the bytes so far and in total.

    Raises:
        UsageError: the model is unknown.
        WeightsError: every source failed, or nobody agreed to the download (see `consent`).
        InputError: the disk is full or the cache cannot be written.
    """
    return located(Wanted(model, weights, revision), offline=offline, on_progress=on_progress)


def located(wanted: Wanted, *, offline: bool | None = None, on_progress: OnProgress | None = None) -> Path:
    """Return the folder or file of these weights; see `locate`."""
    with _access_first(wanted):
        if (found := _find(wanted)) is not None:
            return found
        if is_offline() if offline is None else offline:
            raise _not_found(f"{wanted.name} is not on this machine, and downloads are off (offline).", wanted)
        if are_forbidden():
            raise _not_found(f"{wanted.name} is no longer on this machine, where it was before the start.", wanted)
        _ask_for([wanted])
        return fetch(wanted, on_progress)


def obtain(wanted: Iterable[Wanted]) -> None:
    """Download missing weights after one question for all of them, before worker processes start; not offline."""
    if is_offline() or are_forbidden():
        return
    for one in agree(wanted):
        with _access_first(one):
            fetch(one, None)


def agree(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Ask once whether missing weights may be downloaded, and return them; errors as `locate`."""
    missing = list[Wanted]()
    for one in dict.fromkeys(wanted):
        with _access_first(one):
            if _find(one) is None:
                missing.append(one)
    if missing:
        _ask_for(missing)
    return missing


def _ask_for(missing: list[Wanted]) -> None:
    if may_download():
        return
    names, texts = [one.name for one in missing], [one.description for one in missing]
    if ask("Download " + " and ".join(f"{name} ({text})" for name, text in zip(names, texts, strict=True)) + "?"):
        return
    commands = " and ".join(f"`propagate models download {one.model} --yes`" for one in missing)
    error = WeightsError(
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not on this machine, and nothing is downloaded "
        f"unasked: {'; '.join(texts)}.",
        f"Get it with {commands}, name your own weights (--set features.weights=PATH), or give --yes."
        if all(one.is_published for one in missing)
        else f"Give --yes, or set {CONSENT}=yes.",
    )
    if len(missing) > 1:
        raise error
    with _access_first(missing[0]):
        raise error


@contextmanager
def _access_first(wanted: Wanted) -> Iterator[None]:
    """Let the remedy of an error begin with the steps that give access."""
    try:
        yield
    except WeightsError as error:
        if not wanted.access or error.remedy.startswith(wanted.access):
            raise
        raise WeightsError(error.message, f"{wanted.access} {error.remedy}") from error.__cause__


def _find(wanted: Wanted) -> Path | None:
    """Find weights on this machine, and check that they are those of the first download."""
    is_folder = find_model(wanted.model).is_folder
    if (path := wanted.local_path) is not None:
        if wanted.revision is not None:
            raise UsageError(f"revision {wanted.revision}: {path} is on this machine and has none.", "Leave it out.")
        return path
    for source in wanted.sources():
        if isinstance(source, HubSource) and (paths := hub.cached_files(source)) is not None:
            hub.check_record(source, hub.snapshot(source, paths), is_new=False)
        if (found := _cached(source, is_folder)) is not None:
            return found
    return None


def version_of(wanted: Wanted) -> str:
    """Return the commit of hub files or the digest of a plain file; empty for a named path, or if unknown."""
    if wanted.local_path is not None:
        return ""
    versions = list[str | None]()
    for source in wanted.sources():
        if isinstance(source, UrlSource):
            versions.append(_recorded_digest(cache_folder() / source.file.name))
        elif (paths := hub.cached_files(source)) is not None:
            return hub.snapshot(source, paths).name
        elif (record := hub.read_record(source)) is not None:
            versions.append(record.commit)
    return next(filter(None, versions), "")


def cached(model: str) -> Path | None:
    """Return the folder or file of a model in the cache, or None where a file is missing."""
    entry = find_model(model)
    found = (_cached(source, entry.is_folder) for source in entry.sources)
    return next((path for path in found if path is not None), None)


def verify(model: str, path: Path | None = None) -> Iterator[FileCheck]:
    """Check every file of a model, in its cache or at a path, against known sizes and digests.

    Raises:
        UsageError, WeightsError: the model is unknown, or not on this machine.
    """
    source = find_model(model).sources[0]
    place = path or cached(model)
    if place is None:
        raise WeightsError(f"{model} is not on this machine.", f"Get it with `propagate models download {model}`.")
    record = hub.read_record(source) if isinstance(source, HubSource) and path is None else None
    recorded = {} if record is None else record.files
    for file in source.files:
        at = place / file.name if place.is_dir() else place
        known = file.sha256
        if known is None:
            known = _recorded_digest(at) if isinstance(source, UrlSource) else recorded.get(file.name)
        yield FileCheck(at, hub.file_problem(at, replace(file, sha256=known)), known is not None)


def _cached(source: Source, is_folder: bool) -> Path | None:
    """Find a source's files in the cache by name and size; `verify` checks digests."""
    if isinstance(source, UrlSource):
        path = cache_folder() / source.file.name
        return path if path.is_file() and not hub.has_wrong_size(path, source.file) else None
    paths = hub.cached_files(source)
    return None if paths is None else hub.snapshot(source, paths) if is_folder else paths[0]


def fetch(wanted: Wanted, on_progress: OnProgress | None) -> Path:
    """Download weights from the first source that has them, after `agree`; errors as `locate`."""
    failures = []
    for source in wanted.sources():
        try:
            if isinstance(source, UrlSource):
                path, file = cache_folder() / source.file.name, source.file
                download(source.url, path, size=file.size, sha256=file.sha256, on_progress=on_progress)
                return path
            paths = hub.download_files(source)
            folder = hub.snapshot(source, paths)
            hub.check_record(source, folder, is_new=True)
            return folder if find_model(wanted.model).is_folder else paths[0]
        except DownloadError as error:
            failures.append(f"{source}: {error}")
    raise _not_found(f"The weights of {wanted.name} could not be found.", wanted, failures)


def _recorded_digest(path: Path) -> str | None:
    try:
        return recorded_digest(path)
    except DownloadError as error:
        raise WeightsError(f"{path}: {error}.") from error


def _not_found(message: str, wanted: Wanted, failures: list[str] | None = None) -> WeightsError:
    tried = [f"{source}: not in the cache" for source in wanted.sources()] if failures is None else failures
    return WeightsError(
        f"{message} Tried: {'; '.join(tried)}.",
        "Three ways out: name your own weights (--set features.weights=PATH; `propagate models download NAME` "
        "gets them where there is a network), set HF_ENDPOINT to a mirror of the hub, or use the preset `compact`, "
        "whose weights are in the package.",
    )
