"""Download one file from a plain URL: retry, resume, verify, then move into place."""

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


def cache_folder() -> Path:
    """Return the folder of files from plain URLs and of records of hub downloads."""
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
    """Download a file to `path`.

    When the connection breaks, `NAME.part` keeps the bytes, and a later call resumes if the server still has the same
    file. A file of the wrong size or digest is removed, as is one that exceeds `size` or, if unknown, `MAX_BYTES`.
    Without a known digest, `NAME.sha256` records that of the first download, and later ones must match. Only one
    process downloads at a time. A file with the known digest is not downloaded again.

    Raises:
        DownloadError: the source lacks the file, breaks off repeatedly, or has another file.
        InputError: the disk is full or the path cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    before = _state(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            downloaded_elsewhere = before != _state(path)
            if downloaded_elsewhere or (sha256 is not None and path.is_file() and file_sha256(path) == sha256):
                return
            if size is None or not part.is_file() or part.stat().st_size != size:
                _fetch_with_retries(url, part, size, on_progress)
            digest = _verified(part, size, sha256 or recorded_digest(path))
            if sha256 is None:
                _digest_file(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
            part.replace(path)
            etag_file(part).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def recorded_digest(path: Path) -> str | None:
    """Return the SHA-256 recorded at the first download, or None; raise a DownloadError for a damaged record."""
    record = _digest_file(path)
    try:
        text = record.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except ValueError:
        text = ""
    if not _DIGEST.fullmatch(digest := text.partition(" ")[0]):
        raise DownloadError(f"the record of its digest, {record}, is damaged; delete it to download the file again")
    return digest


def _verified(part: Path, size: int | None, sha256: str | None) -> str:
    """Return the digest of a downloaded file; remove a wrong one."""
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
    """Return inode and modification time, which change when a file is replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock; the system releases it when the process dies."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    with lock:
        try:
            yield
        finally:
            with suppress(OSError):
                Path(lock.lock_file).unlink()


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_error(path: Path, error: OSError) -> InputError:
    """Return the error for a cache that cannot be written."""
    if is_disk_full(error):
        return disk_full(path)
    return InputError(
        f"{path} cannot be written: {error.strerror or error}.", "Choose another place with XDG_CACHE_HOME."
    )


def disk_full(path: Path) -> InputError:
    """Return the error for a download to a full disk."""
    return InputError(
        f"{path} cannot be written: the disk is full.",
        "Free some space, or choose another place: XDG_CACHE_HOME, and HF_HOME for weights from the hub.",
    )


def is_disk_full(error: BaseException) -> bool:
    """Return whether the error or one of its causes is a full disk."""
    return any(isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT) for one in _causes(error))


def is_unknown_host(error: BaseException) -> bool:
    """Return whether the error or one of its causes is a failed name lookup."""
    return any(isinstance(one, socket.gaierror) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fetch_with_retries(url: str, part: Path, size: int | None, on_progress: OnProgress | None) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return fetch(url, part, size, on_progress)
        except Exception as error:  # the HTTP library of huggingface_hub changes, and its exceptions with it
            if is_unknown_host(error):  # retrying does not help
                host = urlsplit(url).hostname
                raise DownloadError(f"the name {host} cannot be resolved; is there a network?") from error
            is_network = isinstance(error, ConnectionError | TimeoutError) or not isinstance(error, OSError)
            if isinstance(error, DownloadError) or not is_network:
                raise
            if attempt == ATTEMPTS:
                reason = str(error) or type(error).__name__
                raise DownloadError(f"it failed {ATTEMPTS} times, at last with: {reason}") from error
        time.sleep(PAUSE_S * attempt)
    return None
