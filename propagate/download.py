"""One file from a plain URL: resumed after a break, checked, and in its place only when whole and right."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from propagate.errors import InputError

ATTEMPTS = 5
PAUSE_S = 1.0  # before the second attempt; grows with each
_TIMEOUT_S = 30
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

OnProgress = Callable[[int, int | None], None]


class DownloadError(Exception):
    """A source did not give the file; the text says why. Another source may."""


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
    there. A file of the wrong size or digest is thrown away.

    Args:
        url: http or https.
        path: where the file goes; its folder is created.
        size: in bytes, where known.
        sha256: hex digest, where known.
        on_progress: called with the bytes so far and in all.

    Raises:
        DownloadError: the source does not have it, breaks off again and again, or has another file.
        InputError: the disk is full or the place cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if size is None or not part.is_file() or part.stat().st_size != size:
            _fetch_with_retries(url, part, size, on_progress)
        if size is not None and part.stat().st_size != size:
            arrived = part.stat().st_size
            part.unlink()
            raise DownloadError(f"the file there has {arrived} bytes, not {size}")
        if sha256 is not None and (found := file_sha256(part)) != sha256:
            part.unlink()
            raise DownloadError(f"the file there has the SHA-256 {found}, not {sha256}")
        part.replace(path)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place with XDG_CACHE_HOME."
        ) from error


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
            return _fetch(url, part, size, on_progress)
        except Exception as error:  # the HTTP library under huggingface_hub changes, and its exceptions with it
            of_the_network = isinstance(error, ConnectionError | TimeoutError) or not isinstance(error, OSError)
            if isinstance(error, DownloadError) or not of_the_network:
                raise
            if attempt == ATTEMPTS:
                reason = str(error) or type(error).__name__
                raise DownloadError(f"it failed {ATTEMPTS} times, at last with: {reason}") from error
        time.sleep(PAUSE_S * attempt)
    return None


class _BusyError(Exception):
    """The server may answer later."""


def _fetch(url: str, part: Path, size: int | None, on_progress: OnProgress | None) -> None:
    """One request for what is still missing, appended to the part."""
    from huggingface_hub import get_session

    done = part.stat().st_size if part.is_file() else 0
    # identity: a compressed answer could not be resumed, nor its length be compared
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True) as response:
        if response.status_code == 416:  # the part is not the beginning of this file
            part.unlink()
            return _fetch(url, part, size, on_progress)
        if response.status_code == 429 or response.status_code >= 500:
            raise _BusyError(f"HTTP status {response.status_code}")
        if response.status_code not in (200, 206):
            raise DownloadError(f"HTTP status {response.status_code}")
        resumed = response.status_code == 206
        total = _total(response, done if resumed else 0)
        if size is not None and total not in (None, size):
            raise DownloadError(f"the file there has {total} bytes, not {size}")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                if on_progress is not None:
                    on_progress(file.tell(), size or total)
    return None


def _total(response: Any, before: int) -> int | None:
    length = response.headers.get("Content-Length")
    return before + int(length) if length is not None else None
