"""One request for a file, resumed, bounded and whole."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

MAX_BYTES = 32 * 10**9  # of a file whose size nobody published
_TIMEOUT_S = 30
_REDIRECTS = 10
_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')

OnProgress = Callable[[int, int | None], None]


class DownloadError(Exception):
    """A source did not give the file; the text says why. Another source may."""


class _BusyError(Exception):
    """The server may answer later."""


def fetch(url: str, part: Path, size: int | None, on_progress: OnProgress | None) -> None:
    """Ask once for what is still missing, and append it to the part.

    Args:
        url: http or https.
        part: what has arrived so far.
        size: in bytes, where known.
        on_progress: called with the bytes so far and in all.

    Raises:
        DownloadError: the source does not have the file, or another one.
        Exception: the connection broke, the server is busy, or the disk is full.
    """
    etag = _etag(part)
    done = part.stat().st_size if part.is_file() and (etag or size is not None) else 0
    # identity: a compressed answer could not be resumed, nor its length be compared
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", **({"If-Range": etag} if etag else {})}
    with _answer(url, headers) as response:
        if response.status_code == 416 and done:  # the part is not the beginning of this file
            forget(part)
            raise _BusyError("the file there has changed")
        if response.status_code == 429 or response.status_code >= 500:
            raise _BusyError(f"HTTP status {response.status_code}")
        if response.status_code not in (200, 206):
            raise DownloadError(f"HTTP status {response.status_code}")
        resumed = bool(done) and response.status_code == 206 and _starts_at(response, done)
        if response.status_code == 206 and not resumed:
            forget(part)
            raise _BusyError("the server sent another part than was asked for")
        total = _total(response, done if resumed else 0)
        if size is not None and total not in (None, size):
            raise DownloadError(f"the file there has {total} bytes, not {size}")
        if not resumed:
            forget(part)
            if (new := response.headers.get("ETag")) and not new.startswith("W/"):
                etag_file(part).write_text(new, encoding="utf-8")
        _write(response, part, size, total, on_progress)
        if total is None and size is None and not _is_whole(part):
            raise ConnectionError("the file ends early")
        if total is not None and part.stat().st_size != total:
            raise ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")


def _write(response: Any, part: Path, size: int | None, total: int | None, on_progress: OnProgress | None) -> None:
    """Append the body to the part; one that grows beyond the bound is removed."""
    most = MAX_BYTES if size is None else size
    if total is not None and total > most:
        raise DownloadError(f"the file there has {total} bytes, more than {most}")
    with part.open("ab") as file:
        for chunk in response.iter_bytes():
            if file.tell() + len(chunk) > most:
                forget(part)
                raise DownloadError(f"the file there has more than {most} bytes")
            file.write(chunk)
            if on_progress is not None:
                on_progress(file.tell(), size or total)


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The answer to a request, redirects followed: to http and https alone, and from https to https."""
    from huggingface_hub import get_session

    for _ in range(_REDIRECTS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(f"{urlsplit(url).scheme}: is not an address of the web")
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=False) as response:
            if response.status_code not in (301, 302, 303, 307, 308):
                yield response
                return
            target = urljoin(url, response.headers.get("Location", ""))
        if urlsplit(target).scheme != "https" and urlsplit(url).scheme == "https":
            raise DownloadError(f"it is redirected from https to {urlsplit(target).scheme}")
        url = target
    raise DownloadError(f"it is redirected more than {_REDIRECTS} times")


def _etag(part: Path) -> str | None:
    """What the server called the version that the part is of."""
    try:
        text = etag_file(part).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if _ETAG.fullmatch(text) else None


def _starts_at(response: Any, done: int) -> bool:
    told = response.headers.get("Content-Range")
    return told is None or told.replace(" ", "").startswith(f"bytes{done}-")


def _total(response: Any, before: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return before + int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def _is_whole(path: Path) -> bool:
    """Whether a file whose length nobody told looks whole; of other kinds than safetensors and zip nothing is known."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if path.name.endswith(".safetensors.part"):
            try:
                header = json.loads(file.read(min(int.from_bytes(start, "little"), 10**8)))
                last = max(value["data_offsets"][1] for name, value in header.items() if name != "__metadata__")
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
                return False
            return bool(size == 8 + int.from_bytes(start, "little") + last)
    return zipfile.is_zipfile(path) if start.startswith(b"PK") else size > 0


def forget(part: Path) -> None:
    """Remove what has arrived."""
    part.unlink(missing_ok=True)
    etag_file(part).unlink(missing_ok=True)


def etag_file(part: Path) -> Path:
    """Return where the version that a part is of is written down."""
    return part.with_name(f"{part.name}.etag")
