"""One file from a plain URL: resumed after a break, checked, and in its place only when whole and right."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from propagate.errors import InputError
from propagate.weights.http_fetch import MAX_BYTES, DownloadError, OnProgress, etag_file, fetch, forget

__all__ = ["MAX_BYTES", "DownloadError", "OnProgress", "cache_folder", "download", "file_sha256", "recorded_digest"]

ATTEMPTS = 5
PAUSE_S = 1.0  # before the second attempt; grows with each
_DIGEST = re.compile("[0-9a-f]{64}")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_folder() -> Path:
    """Where files from plain URLs are kept, and what is known of those from the hub."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dift-propagate"


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Fetch a file to `path`.

    What has arrived is kept beside the place as `NAME.part` when the connection breaks, and a later call goes on from
    there, if the server still has the same file. A file of the wrong size or digest is thrown away, as is one that
    grows beyond `size` or, where that is not known, `MAX_BYTES`. Where no digest is known, that of the first fetch is
    recorded as `NAME.sha256`, and later ones have to agree. One process fetches at a time; others wait for it. A file
    that is there with the known digest is not fetched again.

    Args:
        url: http or https. A redirect from https leads to https alone.
        path: where the file goes; its folder is created.
        size: in bytes, where known.
        sha256: hex digest, where known.
        on_progress: called with the bytes so far and in all.

    Raises:
        DownloadError: the source does not have it, breaks off again and again, or has another file.
        InputError: the disk is full or the place cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    before = _state(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if before != _state(path) or _is_there(path, sha256):  # another process has fetched it
                return
            if size is None or not part.is_file() or part.stat().st_size != size:
                _fetch_with_retries(url, part, size, on_progress)
            found = _checked(part, size, sha256 or recorded_digest(path))
            if sha256 is None:
                _digest_file(path).write_text(f"{found}  {path.name}\n", encoding="utf-8")
            part.replace(path)
            etag_file(part).unlink(missing_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place with XDG_CACHE_HOME."
        ) from error


def recorded_digest(path: Path) -> str | None:
    """Return the SHA-256 that was recorded when a file was fetched first; None where there is none.

    Raises:
        DownloadError: the record is damaged.
    """
    place = _digest_file(path)
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except ValueError:
        text = ""
    if not _DIGEST.fullmatch(digest := text.partition(" ")[0]):
        raise DownloadError(f"the record of its digest, {place}, is damaged; delete it to fetch the file anew")
    return digest


def _checked(part: Path, size: int | None, sha256: str | None) -> str:
    """The digest of what has arrived; the wrong file is removed."""
    arrived, found = part.stat().st_size, file_sha256(part)
    if size is not None and arrived != size:
        problem = f"the file there has {arrived} bytes, not {size}"
    elif sha256 is not None and found != sha256:
        problem = f"the file there has the SHA-256 {found}, not {sha256}"
    else:
        return found
    forget(part)
    raise DownloadError(problem)


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _state(path: Path) -> tuple[int, int] | None:
    """What tells a file from one that was put in its place."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _is_there(path: Path, sha256: str | None) -> bool:
    """Whether the very file that is wanted lies in its place."""
    return sha256 is not None and path.is_file() and file_sha256(path) == sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with its process, however that ends."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    with lock:
        try:
            yield
        finally:
            with suppress(OSError):
                Path(lock.lock_file).unlink()


def file_sha256(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def disk_full(path: Path) -> InputError:
    """The error for a download that found no room."""
    return InputError(
        f"{path} cannot be written: the disk is full.",
        "Free some space, or choose another place: XDG_CACHE_HOME, and HF_HOME for weights from the hub.",
    )


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, is about a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _fetch_with_retries(url: str, part: Path, size: int | None, on_progress: OnProgress | None) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return fetch(url, part, size, on_progress)
        except Exception as error:  # the HTTP library under huggingface_hub changes, and its exceptions with it
            if host_is_unknown(error):  # it will not be known in a second either
                raise DownloadError(
                    f"the name {urlsplit(url).hostname} cannot be resolved; is there a network?"
                ) from error
            of_the_network = isinstance(error, ConnectionError | TimeoutError) or not isinstance(error, OSError)
            if isinstance(error, DownloadError) or not of_the_network:
                raise
            if attempt == ATTEMPTS:
                reason = str(error) or type(error).__name__
                raise DownloadError(f"it failed {ATTEMPTS} times, at last with: {reason}") from error
        time.sleep(PAUSE_S * attempt)
    return None


def host_is_unknown(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, is about a name that could not be resolved."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False
