"""Where model weights come from. Nothing else of this package touches the network.

A model is looked for at the path that was named, then in the local caches, then at its sources in order; the first that
has it wins. What is downloaded is checked against the digest where one is known. Weights from the hub lie in
huggingface_hub's own cache (HF_HOME), others in `XDG_CACHE_HOME/dift-propagate`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from propagate.download import (
    DownloadError,
    OnProgress,
    disk_full,
    download,
    file_sha256,
    host_is_unknown,
    is_disk_full,
    recorded_digest,
)
from propagate.errors import UsageError, WeightsError
from propagate.model_registry import MODELS, HubSource, Model, Source, UrlSource, WeightFile

__all__ = [
    "CONSENT",
    "MODELS",
    "FileCheck",
    "asking",
    "cache_folder",
    "cached",
    "is_offline",
    "locate",
    "may_download",
    "verify",
]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
_FALSE = ("", "0", "false", "no", "off")
CONSENT = "PROPAGATE_DOWNLOADS"

_ask: ContextVar[Callable[[str], bool] | None] = ContextVar("ask", default=None)


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
    entry = _model(model)
    if weights is not None and (path := Path(weights).expanduser()).exists():
        return path
    sources = _sources(entry, weights, revision)
    for source in sources:
        if (found := _cached(source, entry.is_folder)) is not None:
            return found
    name = model if weights is None else str(weights)
    if is_offline() if offline is None else offline:
        tried = [f"{source}: not in the cache" for source in sources]
        raise _nowhere(f"{name} is not on this machine, and downloads are switched off (offline).", tried)
    if not may_download() and not _asked(name, entry, sources, own=weights is None and revision is None):
        raise WeightsError(
            f"{name} is not on this machine, and nothing is downloaded unasked: {_described(entry, sources)}.",
            f"Get it with `propagate models download {model} --yes`, name weights that you have "
            "(--set features.weights=PATH), or give --yes."
            if weights is None and revision is None
            else f"Give --yes, or set {CONSENT}=yes.",
        )
    failures = []
    for source in sources:
        try:
            return _fetched(source, entry.is_folder, on_progress)
        except DownloadError as error:
            failures.append(f"{source}: {error}")
    raise _nowhere(f"The weights of {name} could not be found.", failures)


def may_download() -> bool:
    """Whether downloads were agreed to (`--yes`, or PROPAGATE_DOWNLOADS=yes), in this process and those it starts."""
    return os.environ.get(CONSENT, "").lower() not in _FALSE


@contextmanager
def asking(ask: Callable[[str], bool]) -> Iterator[None]:
    """Ask before a download, in this block.

    Args:
        ask: gets a question that names model, size and licence.
    """
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def _asked(name: str, entry: Model, sources: tuple[Source, ...], *, own: bool) -> bool:
    ask = _ask.get()
    return ask is not None and ask(f"Download {name} ({_described(entry, sources, own=own)})?")


def _described(entry: Model, sources: tuple[Source, ...], *, own: bool = True) -> str:
    """Size and licence of a model, for whoever has to agree."""
    sizes = [file.size for file in sources[0].files if not file.name.endswith((".json", ".txt"))]
    known = sum(size or 0 for size in sizes)
    size = f"{known / 1e9:.2g} GB" if all(sizes) and own else "of unknown size, maybe gigabytes"
    return f"{size}, licence {entry.licence}, from {sources[0]}"


def cached(model: str) -> Path | None:
    """The folder or file where a model lies on this machine; None where it does not, or not whole."""
    entry = _model(model)
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
    entry = _model(model)
    source = entry.sources[0]
    place = path or cached(model)
    if place is None:
        raise WeightsError(f"{model} is not on this machine.", f"Get it with `propagate models download {model}`.")
    for file in source.files:
        at = place / file.name if place.is_dir() else place
        known = file.sha256
        if known is None and isinstance(source, UrlSource):
            known = _recorded(at)
        yield FileCheck(at, _problem(at, replace(file, sha256=known)), known is not None)


def is_offline() -> bool:
    """Whether the environment forbids downloads (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.lower() not in _FALSE for value in switches)


def cache_folder() -> Path:
    """Where files from plain URLs are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dift-propagate"


def _model(name: str) -> Model:
    if name not in MODELS:
        raise UsageError(f"There is no model {name}.", f"Known: {', '.join(MODELS)}.")
    return MODELS[name]


def _sources(entry: Model, weights: str | Path | None, revision: str | None) -> tuple[Source, ...]:
    """The registry's sources, or the repository that was named, whose files have no digest here."""
    files = tuple(WeightFile(name) for name in entry.hub_files)
    if weights is not None:
        if not _is_hub_id(weights):
            raise WeightsError(f"{weights}: there is no such file or folder.", "Check the path (features.weights).")
        return (HubSource(str(weights), revision or "main", files),)
    if revision is not None:
        hub = [source for source in entry.sources if isinstance(source, HubSource)]
        if not hub:
            raise UsageError(f"revision {revision}: the published weights have no revisions.", "Leave it out.")
        return (HubSource(hub[0].repository, revision, files),)
    return entry.sources


def _is_hub_id(weights: str | Path) -> bool:
    """ "owner/name", and not the path of a file that is missing from a folder that is there."""
    text = str(weights)
    return bool(_HUB_ID.fullmatch(text)) and Path(text).suffix not in _FILE_SUFFIXES and not Path(text).parent.exists()


def _cached(source: Source, is_folder: bool) -> Path | None:
    """Where all files of a source lie already, of the right sizes; no network, and no digests: `verify` has those."""
    if isinstance(source, UrlSource):
        path = cache_folder() / source.file.name
        return path if path.is_file() and not _wrong_size(path, source.file) else None
    from huggingface_hub import try_to_load_from_cache

    paths = []
    for file in source.files:
        found = try_to_load_from_cache(source.repository, file.name, revision=source.revision)
        if not isinstance(found, str) or _wrong_size(Path(found), file):
            return None
        paths.append(Path(found))
    return _root(paths[0], source.files[0]) if is_folder else paths[0]


def _fetched(source: Source, is_folder: bool, on_progress: OnProgress | None) -> Path:
    if isinstance(source, UrlSource):
        path = cache_folder() / source.file.name
        download(source.url, path, size=source.file.size, sha256=source.file.sha256, on_progress=on_progress)
        return path
    paths = [_fetched_from_hub(source, file) for file in source.files]
    return _root(paths[0], source.files[0]) if is_folder else paths[0]


def _recorded(path: Path) -> str | None:
    try:
        return recorded_digest(path)
    except DownloadError as error:
        raise WeightsError(f"{path}: {error}.") from error


def _fetched_from_hub(source: HubSource, file: WeightFile) -> Path:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    known = try_to_load_from_cache(source.repository, file.name, revision=source.revision)
    if isinstance(known, str) and not _wrong_size(Path(known), file):
        return Path(known)
    try:
        path = Path(
            hf_hub_download(
                source.repository, file.name, revision=source.revision, force_download=isinstance(known, str)
            )
        )
    except Exception as error:  # a dozen classes of three libraries; whichever it is, the next source is tried
        if is_disk_full(error):
            raise disk_full(Path(constants.HF_HUB_CACHE)) from error
        if host_is_unknown(error):
            raise DownloadError("the name of the hub's host cannot be resolved; is there a network?") from error
        raise DownloadError(f"{file.name}: {_shortened(error)}") from error
    if problem := _problem(path, file):
        # the snapshot links to a blob: both go, or the wrong file would be found in the cache next time
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)
        raise DownloadError(f"{file.name}: {problem}")
    return path


def _root(path: Path, file: WeightFile) -> Path:
    return path.parents[len(PurePosixPath(file.name).parts) - 1]


def _problem(path: Path, file: WeightFile) -> str:
    if not path.is_file():
        return "is missing"
    if _wrong_size(path, file):
        return f"has {path.stat().st_size} bytes, not {file.size}"
    if file.sha256 is not None and (found := file_sha256(path)) != file.sha256:
        return f"has the SHA-256 {found}, not {file.sha256}"
    return ""


def _wrong_size(path: Path, file: WeightFile) -> bool:
    return file.size is not None and path.stat().st_size != file.size


def _nowhere(message: str, tried: list[str]) -> WeightsError:
    return WeightsError(
        " ".join([message, "Tried:", "; ".join(tried) + "."]),
        "Three ways out: name weights that you have (--set features.weights=PATH; `propagate models download NAME` "
        "gets them where there is a network), set HF_ENDPOINT to a mirror of the hub, or take the preset `compact`, "
        "whose weights are in the package.",
    )


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
