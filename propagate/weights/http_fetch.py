"""One HTTP request for a file: resumed, bounded and checked for completeness."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

MAX_BYTES = 32 * 10**9  # of a file of unknown size
_TIMEOUT_S = 30
_REDIRECTS = 10
_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')

OnProgress = Callable[[int, int | None], None]  # gets the bytes so far and in total


class DownloadError(Exception):
    """A source did not provide the file; the text says why. Another source may."""


class _BusyError(Exception):
    """The request may succeed later."""


def fetch(url: str, part: Path, size: int | None, on_progress: OnProgress | None) -> None:
    """Request the missing bytes once, and append them to the partial file.

    Raises a DownloadError if the source lacks the file or has another one; after other errors a retry may succeed.
    """
    etag = _etag(part)
    done = part.stat().st_size if part.is_file() and (etag or size is not None) else 0
    # identity: a compressed body cannot be resumed, and its length cannot be compared
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", **({"If-Range": etag} if etag else {})}
    with _response(url, headers) as response:
        status = response.status_code
        if status == 416 and done:  # the partial file is not the beginning of this file
            forget(part)
            raise _BusyError("the file there has changed")
        if status == 429 or status >= 500:
            raise _BusyError(f"HTTP status {status}")
        if status not in (200, 206):
            raise DownloadError(f"HTTP status {status}")
        resumed = bool(done) and status == 206 and _starts_at(response, done)
        if status == 206 and not resumed:
            forget(part)
            raise _BusyError("the server sent another range than requested")
        total = _total(response, done if resumed else 0)
        if size is not None and total not in (None, size):
            raise DownloadError(f"the file there has {total} bytes, not {size}")
        if not resumed:
            forget(part)
            if (new := response.headers.get("ETag")) and not new.startswith("W/"):
                etag_file(part).write_text(new, encoding="utf-8")
        _append(response, part, size, total, on_progress)
        if total is None and size is None and not _is_whole(part):
            raise ConnectionError("the file ends early")
        if total is not None and part.stat().st_size != total:
            raise ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")


def _append(response: Any, part: Path, size: int | None, total: int | None, on_progress: OnProgress | None) -> None:
    """Append the body to the partial file; remove a file that exceeds the limit."""
    limit = MAX_BYTES if size is None else size
    if total is not None and total > limit:
        raise DownloadError(f"the file there has {total} bytes, more than {limit}")
    with part.open("ab") as file:
        for chunk in response.iter_bytes():
            if file.tell() + len(chunk) > limit:
                forget(part)
                raise DownloadError(f"the file there has more than {limit} bytes")
            file.write(chunk)
            if on_progress is not None:
                on_progress(file.tell(), size or total)


@contextmanager
def _response(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """Follow redirects to http and https only, and from https to https only."""
    from huggingface_hub import get_session

    for _ in range(_REDIRECTS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(f"{urlsplit(url).scheme}: is not a web address")
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=False) as response:
            if response.status_code not in (301, 302, 303, 307, 308):
                yield response
                return
            target = urljoin(url, response.headers.get("Location", ""))
        if urlsplit(target).scheme != "https" and urlsplit(url).scheme == "https":
            raise DownloadError(f"it redirects from https to {urlsplit(target).scheme}")
        url = target
    raise DownloadError(f"it redirects more than {_REDIRECTS} times")


def _etag(part: Path) -> str | None:
    try:
        text = etag_file(part).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if _ETAG.fullmatch(text) else None


def _starts_at(response: Any, done: int) -> bool:
    found = response.headers.get("Content-Range")
    return found is None or found.replace(" ", "").startswith(f"bytes{done}-")


def _total(response: Any, before: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return before + int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def _is_whole(path: Path) -> bool:
    """Check the length in the header of safetensors, and the directory of zip files; other formats have neither."""
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
    """Remove a partial file and its ETag."""
    part.unlink(missing_ok=True)
    etag_file(part).unlink(missing_ok=True)


def etag_file(part: Path) -> Path:
    """Return the path of the partial file's ETag."""
    return part.with_name(f"{part.name}.etag")
