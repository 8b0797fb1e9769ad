"""What a server can do to a download; `test_weights` has the usual ways."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from huggingface_hub import constants

from propagate.weights import download as module
from propagate.weights import http_fetch
from propagate.weights.download import DownloadError, download, recorded_digest

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server that does what `answer` says.

    Attributes:
        requests: headers of every request so far.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, str]] = []
        self.answer: Answer = send()


def send(content: bytes = CONTENT, *, length: bool = True, status: int = 200, cut: int | None = None, **headers: str):
    """An answer with this content; `cut`: bytes after which the connection ends."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if length:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:cut])

    return answer


def in_turn(*answers: Answer) -> Answer:
    waiting = list(answers)
    return lambda request: waiting.pop(0)(request)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(dict(self.headers.items()))
            state.answer(self)

        def log_message(self, *_) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/model"
    yield state
    huggingface_hub.close_session()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def names(path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_the_first_digest_is_recorded_and_later_ones_have_to_agree(server, path):
    download(server.url, path)
    assert recorded_digest(path) == SHA256
    path.unlink()
    server.answer = send(CONTENT[::-1])
    with pytest.raises(DownloadError, match=f"SHA-256 .* not {SHA256}"):
        download(server.url, path)
    assert names(path) == ["model.pt.sha256"]
    path.with_name("model.pt.sha256").write_text("nothing")
    with pytest.raises(DownloadError, match="record of its digest"):
        download(server.url, path)


@pytest.mark.parametrize("length", [True, False])
def test_a_download_is_bounded(server, path, length, monkeypatch):
    monkeypatch.setattr(http_fetch, "MAX_BYTES", 100_000)
    server.answer = send(length=length)
    with pytest.raises(DownloadError, match="more than 100000"):
        download(server.url, path)
    with pytest.raises(DownloadError, match=r"more than 5000|bytes, not 5000"):
        download(server.url, path, size=5000)
    assert names(path) == []


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [9000], "data_offsets": [0, 9000]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(9000)


def test_a_body_without_length_that_ends_early_is_noticed(server, tmp_path):
    server.answer = send(safetensors(), length=False, cut=5000)
    with pytest.raises(DownloadError, match="the file ends early"):
        download(server.url, tmp_path / "model.safetensors")
    server.answer = send(safetensors(), length=False)
    download(server.url, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == safetensors()


def test_a_part_goes_on_only_if_the_file_is_still_the_same(server, path):
    server.answer = in_turn(send(cut=1000, ETag='"one"'), send(CONTENT[::-1], ETag='"two"'))
    download(server.url, path)
    assert server.requests[1]["If-Range"] == '"one"'
    assert server.requests[1]["Range"].startswith("bytes=")
    assert path.read_bytes() == CONTENT[::-1]
    assert names(path) == ["model.pt", "model.pt.sha256"]


def test_without_a_version_or_a_size_a_part_is_not_gone_on_with(server, path):
    server.answer = in_turn(send(cut=1000, ETag='W/"weak"'), send())
    download(server.url, path)
    assert "Range" not in server.requests[1]
    assert path.read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_not_appended(server, path):
    wrong = send(CONTENT[5:], status=206, Content_Range="bytes 5-511999/512000")
    server.answer = in_turn(send(cut=1000, ETag='"one"'), wrong, send())
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_server_that_knows_no_range_at_all_ends(server, path):
    path.with_name("model.pt.part").write_bytes(b"x")
    server.answer = send(b"", status=416)
    with pytest.raises(DownloadError, match="HTTP status 416"):
        download(server.url, path, size=len(CONTENT))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_stays_on_the_web(server, path, target):
    server.answer = send(b"", status=302, Location=target)
    with pytest.raises(DownloadError, match="is not a web address"):
        download(server.url, path)
    assert not path.exists()


def test_redirects_are_followed_and_end(server, path):
    server.answer = in_turn(send(b"", status=302, Location="/other"), send())
    download(server.url, path, sha256=SHA256)
    server.answer = send(b"", status=302, Location="/again")
    with pytest.raises(DownloadError, match="redirects more than"):
        download(server.url, path.with_name("other"))


def test_a_name_that_is_not_known_is_one_error_at_once(path, monkeypatch):
    asked = []

    def unknown(*arguments, **_):
        asked.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"the name models\.invalid cannot be resolved"):
        download("https://models.invalid/model.pt", path)
    assert len(asked) == 1


def _fetch(url, path, done) -> None:
    download(url, path, size=len(CONTENT), sha256=SHA256)
    done.put(path.read_bytes() == CONTENT)


def test_processes_fetch_a_file_once(server, path):
    arrived = threading.Event()
    plain = send()

    def slow(request: BaseHTTPRequestHandler) -> None:
        arrived.wait(10)
        plain(request)

    server.answer = slow
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    processes = [context.Process(target=_fetch, args=(server.url, path, done)) for _ in range(3)]
    for process in processes:
        process.start()
    arrived.set()
    assert [done.get(timeout=60) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert len(server.requests) == 1
    assert names(path) == ["model.pt"]
