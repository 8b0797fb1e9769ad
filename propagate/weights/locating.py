"""Where model weights come from. Nothing else of this package touches the network.

A model is looked for at the path that was named, then in the local caches, then at its sources in order; the first that
has it wins. What is downloaded is checked against the digest where one is known. Weights from the hub lie in
huggingface_hub's own cache (HF_HOME), others in `XDG_CACHE_HOME/dift-propagate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from propagate.errors import UsageError, WeightsError
from propagate.weights.consent import CONSENT, are_forbidden, ask, asking, is_offline, may_download
from propagate.weights.download import DownloadError, OnProgress, cache_folder, download, recorded_digest
from propagate.weights.hub_files import cached_in_hub, fetched_from_hub, file_problem, has_wrong_size, root
from propagate.weights.hub_record import check_record, recorded_commit, recorded_digests
from propagate.weights.registry import MODELS, HubSource, Source, UrlSource
from propagate.weights.wanted import Wanted, described, registered, sources

__all__ = [
    "CONSENT",
    "MODELS",
    "FileCheck",
    "Wanted",
    "agree",
    "asking",
    "cache_folder",
    "cached",
    "fetched",
    "is_offline",
    "locate",
    "located",
    "may_download",
    "obtain",
    "verify",
    "version_of",
]


@dataclass(frozen=True)
class FileCheck:
    """A file on the disk against the registry.

    Attributes:
        path: of the file.
        problem: what is wrong with it; empty where nothing is.
        is_known: there is a digest to compare with.
    """

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
    """The folder or file of a model's weights; downloaded where it is not here yet.

    Args:
        model: a name in `MODELS`.
        weights: a path, or a hub repository ("owner/name") with the same files; None: the model's own sources.
        revision: of the hub repository; None: the registry's, or "main" for a repository that was named.
        offline: look on this machine only; None: what HF_HUB_OFFLINE says.
        on_progress: of a download from a plain URL, called with the bytes so far and in all.

    Raises:
        UsageError: there is no such model.
        WeightsError: the weights are nowhere, and the message says what was tried and why each failed; or they would
            have to be downloaded, and nobody agreed to that (see `may_download`, `asking`).
        InputError: the disk is full or the cache cannot be written.
    """
    return located(Wanted(model, weights, revision), offline=offline, on_progress=on_progress)


def located(wanted: Wanted, *, offline: bool | None = None, on_progress: OnProgress | None = None) -> Path:
    """Return the folder or file of these weights; see `locate`."""
    try:
        if (found := _here(wanted)) is not None:
            return found
        if is_offline() if offline is None else offline:
            raise _nowhere(f"{wanted.name} is not on this machine, and downloads are switched off (offline).", wanted)
        if are_forbidden():
            raise _nowhere(f"{wanted.name} is no longer on this machine, where it was before the start.", wanted)
        _agree([wanted])
        return fetched(wanted, on_progress)
    except WeightsError as error:
        raise _with_access(error, wanted) from error.__cause__


def obtain(wanted: Iterable[Wanted]) -> None:
    """Fetch what is not on this machine, after one question for all of it; nothing offline, and where all is here.

    To be called before processes are started that need it, so that none of them downloads or asks.

    Raises:
        UsageError, WeightsError, InputError: see `locate`.
    """
    if is_offline() or are_forbidden():
        return
    missing = agree(wanted)
    for one in missing:
        try:
            fetched(one, None)
        except WeightsError as error:
            raise _with_access(error, one) from error.__cause__


def agree(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Ask once whether what is not on this machine may be downloaded, and return that.

    Raises:
        UsageError: there is no such model.
        WeightsError: nobody agreed, or there is no such path.
    """
    missing = list[Wanted]()
    for one in dict.fromkeys(wanted):
        try:
            if _here(one) is None:
                missing.append(one)
        except WeightsError as error:
            raise _with_access(error, one) from error.__cause__
    if missing:
        _agree(missing)
    return missing


def _agree(missing: list[Wanted]) -> None:
    if may_download():
        return
    texts = [described(one) for one in missing]
    names = [one.name for one in missing]
    asked = " and ".join(f"{name} ({text})" for name, text in zip(names, texts, strict=True))
    if ask(f"Download {asked}?"):
        return
    published = all(one.is_published for one in missing)
    commands = " and ".join(f"`propagate models download {one.model} --yes`" for one in missing)
    error = WeightsError(
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not on this machine, and nothing is downloaded "
        f"unasked: {'; '.join(texts)}.",
        f"Get it with {commands}, name weights that you have (--set features.weights=PATH), or give --yes."
        if published
        else f"Give --yes, or set {CONSENT}=yes.",
    )
    raise _with_access(error, missing[0]) if len(missing) == 1 else error


def _with_access(error: WeightsError, wanted: Wanted) -> WeightsError:
    """The same error, its remedy beginning with what has to be done first."""
    if not wanted.access or error.remedy.startswith(wanted.access):
        return error
    return WeightsError(error.message, f"{wanted.access} {error.remedy}")


def _here(wanted: Wanted) -> Path | None:
    """Where these weights lie on this machine.

    Raises:
        UsageError: there is no such model, or a revision of a path.
        WeightsError: a path was named, and there is nothing; or the files are not those that were fetched first.
    """
    entry = registered(wanted.model)
    if wanted.weights is not None and (path := Path(wanted.weights).expanduser()).exists():
        if wanted.revision is not None:
            raise UsageError(f"revision {wanted.revision}: {path} is on this machine and has none.", "Leave it out.")
        return path
    for source in sources(wanted):
        if isinstance(source, HubSource):
            if (paths := cached_in_hub(source)) is not None:
                check_record(source, root(paths[0], source.files[0]), is_new=False)
                return _place(source, paths, entry.is_folder)
        elif (found := _cached(source, entry.is_folder)) is not None:
            return found
    return None


def version_of(wanted: Wanted) -> str:
    """Return what tells weights from others of their name: the commit of a hub's files, the digest of a plain file.

    Empty where it is not known, and for files that were named, which are told apart by their content.

    Raises:
        UsageError, WeightsError: see `locate`; or a record of a download is damaged.
    """
    if wanted.weights is not None and Path(wanted.weights).expanduser().exists():
        return ""
    known = list[str | None]()
    for source in sources(wanted):
        if isinstance(source, UrlSource):
            known.append(_recorded(cache_folder() / source.file.name))
        elif (paths := cached_in_hub(source)) is not None:
            return root(paths[0], source.files[0]).name
        else:
            known.append(recorded_commit(source))
    return next(filter(None, known), "")


def cached(model: str) -> Path | None:
    """The folder or file where a model lies on this machine; None where it does not, or not whole."""
    entry = registered(model)
    found = (_cached(source, entry.is_folder) for source in entry.sources)
    return next((path for path in found if path is not None), None)


def verify(model: str, path: Path | None = None) -> Iterator[FileCheck]:
    """Every file of a model against the registry's sizes and digests; reads them whole.

    Args:
        model: a name in `MODELS`.
        path: folder or file to check; None: the cached one.

    Raises:
        UsageError: there is no such model.
        WeightsError: it is not on this machine.
    """
    entry = registered(model)
    source = entry.sources[0]
    place = path or cached(model)
    if place is None:
        raise WeightsError(f"{model} is not on this machine.", f"Get it with `propagate models download {model}`.")
    recorded = recorded_digests(source) if isinstance(source, HubSource) and path is None else {}
    for file in source.files:
        at = place / file.name if place.is_dir() else place
        known = file.sha256
        if known is None:
            known = _recorded(at) if isinstance(source, UrlSource) else recorded.get(file.name)
        yield FileCheck(at, file_problem(at, replace(file, sha256=known)), known is not None)


def _cached(source: Source, is_folder: bool) -> Path | None:
    """Where all files of a source lie already, of the right sizes; no network, and no digests: `verify` has those."""
    if isinstance(source, UrlSource):
        path = cache_folder() / source.file.name
        return path if path.is_file() and not has_wrong_size(path, source.file) else None
    paths = cached_in_hub(source)
    return None if paths is None else _place(source, paths, is_folder)


def fetched(wanted: Wanted, on_progress: OnProgress | None) -> Path:
    """Fetch weights to which the user has agreed (see `agree`), from the first of their sources that has them.

    Raises:
        WeightsError, InputError: see `locate`.
    """
    failures = []
    for source in sources(wanted):
        try:
            return _fetched(source, registered(wanted.model).is_folder, on_progress)
        except DownloadError as error:
            failures.append(f"{source}: {error}")
    raise _nowhere(f"The weights of {wanted.name} could not be found.", wanted, failures)


def _fetched(source: Source, is_folder: bool, on_progress: OnProgress | None) -> Path:
    if isinstance(source, UrlSource):
        path = cache_folder() / source.file.name
        download(source.url, path, size=source.file.size, sha256=source.file.sha256, on_progress=on_progress)
        return path
    paths = fetched_from_hub(source)
    check_record(source, root(paths[0], source.files[0]), is_new=True)
    return _place(source, paths, is_folder)


def _place(source: HubSource, paths: list[Path], is_folder: bool) -> Path:
    return root(paths[0], source.files[0]) if is_folder else paths[0]


def _recorded(path: Path) -> str | None:
    try:
        return recorded_digest(path)
    except DownloadError as error:
        raise WeightsError(f"{path}: {error}.") from error


def _nowhere(message: str, wanted: Wanted, failures: list[str] | None = None) -> WeightsError:
    tried = [f"{source}: not in the cache" for source in sources(wanted)] if failures is None else failures
    return WeightsError(
        " ".join([message, "Tried:", "; ".join(tried) + "."]),
        "Three ways out: name weights that you have (--set features.weights=PATH; `propagate models download NAME` "
        "gets them where there is a network), set HF_ENDPOINT to a mirror of the hub, or take the preset `compact`, "
        "whose weights are in the package.",
    )
