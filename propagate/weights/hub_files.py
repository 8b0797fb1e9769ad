"""Files of the hub: in huggingface_hub's cache, or fetched into it and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from propagate.weights.download import DownloadError, disk_full, file_sha256, host_is_unknown, is_disk_full
from propagate.weights.registry import HubSource, WeightFile

__all__ = ["cached_in_hub", "fetched_from_hub", "file_problem", "has_wrong_size", "root"]


def cached_in_hub(source: HubSource) -> list[Path] | None:
    """Where all files of a source lie already, of the right sizes; None where one does not."""
    found = [_cached(source, file) for file in source.files]
    paths = [path for path in found if path is not None]
    return paths if len(paths) == len(found) else None


def fetched_from_hub(source: HubSource) -> list[Path]:
    """The files of a source, all of one commit; those that are not here are downloaded.

    Raises:
        DownloadError: the hub does not have them, or has others.
        InputError: the disk is full.
    """
    paths = list[Path]()
    for file in source.files:
        paths.append(_fetched(source, file))
        # a branch may move between two files: the others are taken from where it was for the first
        source = replace(source, revision=root(paths[0], source.files[0]).name)
    return paths


def root(path: Path, file: WeightFile) -> Path:
    """The folder of a repository in which a file lies, named after the commit."""
    return path.parents[len(PurePosixPath(file.name).parts) - 1]


def file_problem(path: Path, file: WeightFile) -> str:
    """What is wrong with a file; empty where nothing is. It is read whole where its digest is known."""
    if not path.is_file():
        return "is missing"
    if has_wrong_size(path, file):
        return f"has {path.stat().st_size} bytes, not {file.size}"
    if file.sha256 is not None and (found := file_sha256(path)) != file.sha256:
        return f"has the SHA-256 {found}, not {file.sha256}"
    return ""


def has_wrong_size(path: Path, file: WeightFile) -> bool:
    """Whether a file has another size than is known."""
    return file.size is not None and path.stat().st_size != file.size


def _cached(source: HubSource, file: WeightFile) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repository, file.name, revision=source.revision)
    return None if not isinstance(found, str) or has_wrong_size(Path(found), file) else Path(found)


def _fetched(source: HubSource, file: WeightFile) -> Path:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    if (known := _cached(source, file)) is not None:
        return known
    spoiled = isinstance(try_to_load_from_cache(source.repository, file.name, revision=source.revision), str)
    try:
        path = Path(hf_hub_download(source.repository, file.name, revision=source.revision, force_download=spoiled))
    except Exception as error:  # a dozen classes of three libraries; whichever it is, the next source is tried
        if is_disk_full(error):
            raise disk_full(Path(constants.HF_HUB_CACHE)) from error
        if host_is_unknown(error):
            raise DownloadError("the name of the hub's host cannot be resolved; is there a network?") from error
        raise DownloadError(f"{file.name}: {_shortened(error)}") from error
    if problem := file_problem(path, file):
        # the snapshot links to a blob: both go, or the wrong file would be found in the cache next time
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)
        raise DownloadError(f"{file.name}: {problem}")
    return path


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
