from __future__ import annotations

import errno
import hashlib
import re
import shutil
import socket
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from propagate.errors import InputError, PropagateWarning, UsageError, WeightsError
from propagate.features import EXTRACTORS, build_extractor, wanted_weights
from propagate.weights import download
from propagate.weights import locating as weights
from propagate.weights.consent import CONSENT, asking, forbid
from propagate.weights.download import DownloadError
from propagate.weights.locating import cached, locate, located, obtain, verify, version_of
from propagate.weights.registry import MODELS, HubSource, Model, UrlSource, WeightFile
from propagate.weights.request import Wanted

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

# of these no digests are published
WITHOUT_DIGEST = (
    "dino-",
    *(name for name in MODELS if name.startswith("dinov2-") and name.endswith("-registers")),
    "dinov3-",
    "openclip-",
    "hyperfeatures",
)


@dataclass
class Server:
    """A web server on this machine.

    Attributes:
        cuts: how many bytes each of the next answers sends before it breaks off.
        statuses: given instead of an answer, one per request.
        ranges: the Range header of every request so far.
    """

    url: str = ""
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    knows_ranges: bool = True


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            start = int(asked[len("bytes=") : -1]) if asked and state.knows_ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def log_message(self, *_) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/model.pt"
    yield state
    huggingface_hub.close_session()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> Path:
    """Caches of its own for every test, downloads allowed, no pauses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(CONSENT, "yes")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(download, "PAUSE_S", 0)
    return tmp_path


@pytest.fixture
def tiny(server, monkeypatch) -> Model:
    """A model `tiny` behind a URL of the local server."""
    model = Model(
        "a tiny one",
        "CC0",
        (UrlSource(server.url, WeightFile("model.pt", len(CONTENT), SHA256)),),
        ("config.json",),
        is_folder=True,
    )
    monkeypatch.setitem(MODELS, "tiny", model)
    return model


class Hub:
    """Stands for huggingface_hub's download: writes into its cache as that does."""

    def __init__(self, monkeypatch, cache: Path) -> None:
        self.cache = cache
        self.files: dict[tuple[str, str], bytes] = {}
        self.head = "f" * 40
        self.requests: list[tuple[str, str, str]] = []
        self.error: Exception | None = None
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def download(self, repository: str, name: str, *, revision: str, force_download: bool = False) -> str:
        self.requests.append((repository, name, revision))
        if self.error is not None:
            raise self.error
        if (repository, name) not in self.files:
            raise FileNotFoundError(f"404: {repository} has no {name}")
        folder = self.cache / f"models--{repository.replace('/', '--')}"
        commit = revision if len(revision) == 40 else self.head
        if commit != revision:
            (folder / "refs").mkdir(parents=True, exist_ok=True)
            (folder / "refs" / revision).write_text(commit, encoding="utf-8")
        blob = folder / "blobs" / hashlib.sha256(f"{repository} {name} {commit}".encode()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(self.files[repository, name])
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(blob)
        return str(path)


@pytest.fixture
def hub(monkeypatch, caches) -> Hub:
    return Hub(monkeypatch, caches / "hub")


@pytest.fixture
def pair(hub, monkeypatch) -> Hub:
    """A model `pair` of two files, in two repositories of the hub."""
    files = (WeightFile("unet/config.json"), WeightFile("unet/model.safetensors", len(CONTENT), SHA256))
    sources = (HubSource("first/model", "a" * 40, files), HubSource("second/model", "main", files))
    names = ("unet/config.json", "unet/model.safetensors")
    monkeypatch.setitem(MODELS, "pair", Model("two", "CC0", sources, names, is_folder=True))
    return hub


def fill(hub: Hub, repository: str, content: bytes = CONTENT) -> None:
    hub.files[repository, "unet/config.json"] = b"{}"
    hub.files[repository, "unet/model.safetensors"] = content


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# a file behind a URL


def test_a_download_arrives_whole_and_is_found_the_next_time(server, tiny, caches):
    seen: list[tuple[int, int | None]] = []
    path = locate("tiny", on_progress=lambda done, total: seen.append((done, total)))
    assert path == caches / "cache" / "dift-propagate" / "model.pt"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert locate("tiny", offline=True) == cached("tiny") == path
    assert len(server.ranges) == 1
    assert leftovers(caches) == ["model.pt"]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tiny):
    server.cuts = [1000, 500]
    assert locate("tiny").read_bytes() == CONTENT
    starts = [int(re.findall(r"\d+", asked)[0]) if asked else 0 for asked in server.ranges]
    assert starts[0] == 0
    assert 0 < starts[1] <= 1000
    assert starts[1] < starts[2] <= 1500


def test_what_has_arrived_is_kept_for_the_next_call(server, tiny, caches):
    server.cuts = [1000] + [0] * (download.ATTEMPTS - 1)
    with pytest.raises(WeightsError, match=f"failed {download.ATTEMPTS} times"):
        locate("tiny")
    assert leftovers(caches) == ["model.pt.part"]
    assert cached("tiny") is None
    assert locate("tiny").read_bytes() == CONTENT
    assert server.ranges[-1] != "bytes=0-"
    assert server.ranges[-1] is not None


def test_a_server_that_cannot_resume_starts_again(server, tiny):
    server.cuts, server.knows_ranges = [1000], False
    assert locate("tiny").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server, tiny, caches):
    part = caches / "cache" / "dift-propagate" / "model.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(CONTENT) + 1))
    assert locate("tiny").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, tiny):
    server.statuses = [503, 429]
    assert locate("tiny").read_bytes() == CONTENT


def test_a_wrong_file_is_never_put_in_place(server, tiny, caches):
    server.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match=f"SHA-256 .* not {SHA256}"):
        locate("tiny")
    assert leftovers(caches) == []


def test_a_file_of_the_wrong_size_is_not_even_fetched(server, tiny, caches):
    server.content = CONTENT + b"more"
    with pytest.raises(WeightsError, match=f"has {len(CONTENT) + 4} bytes, not {len(CONTENT)}"):
        locate("tiny")
    assert leftovers(caches) == []


def test_a_file_without_known_digest_is_taken_as_it_is(server, tiny, monkeypatch):
    source = UrlSource(server.url, WeightFile("model.pt"))
    monkeypatch.setitem(MODELS, "tiny", replace(tiny, sources=(source,)))
    assert locate("tiny").read_bytes() == CONTENT


def test_fetched_files_are_known_by_the_digest_of_the_first_fetch(server, tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "tiny", replace(tiny, sources=(UrlSource(server.url, WeightFile("model.pt")),)))
    assert version_of(Wanted("tiny")) == ""
    locate("tiny")
    assert version_of(Wanted("tiny")) == SHA256
    assert version_of(Wanted("tiny", tmp_path)) == ""


def test_not_found_says_what_was_tried_and_the_ways_out(server, tiny):
    server.statuses = [404]
    with pytest.raises(WeightsError) as caught:
        locate("tiny")
    assert server.url in caught.value.message
    assert "HTTP status 404" in caught.value.message
    for way in ("features.weights=PATH", "HF_ENDPOINT", "`compact`"):
        assert way in caught.value.remedy
    assert caught.value.exit_code == 4


def test_a_server_that_is_not_there(tiny, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        source = UrlSource(f"http://127.0.0.1:{unused.getsockname()[1]}/model.pt", WeightFile("model.pt"))
        monkeypatch.setitem(MODELS, "tiny", replace(tiny, sources=(source,)))
        with pytest.raises(WeightsError, match=rf"failed {download.ATTEMPTS} times"):
            locate("tiny")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_path_and_leaves_nothing_under_the_final_name(tiny, caches, monkeypatch, code):
    real = Path.open

    def full(self, mode="r", *rest, **options):
        if "r" in mode:
            return real(self, mode, *rest, **options)
        raise OSError(code, "No space left on device", str(self))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"dift-propagate.model\.pt cannot be written: the disk is full"):
        locate("tiny")
    assert leftovers(caches) == []


def test_a_cache_that_cannot_be_written(tiny, caches):
    (caches / "cache").write_bytes(b"a file, not a folder")
    with pytest.raises(InputError, match=r"model\.pt cannot be written"):
        locate("tiny")


# repositories of the hub


def test_a_repository_is_fetched_once(pair, caches):
    fill(pair, "first/model")
    folder = locate("pair")
    assert (folder / "unet" / "model.safetensors").read_bytes() == CONTENT
    assert folder.name == "a" * 40
    asked = len(pair.requests)
    assert locate("pair") == locate("pair", offline=True) == cached("pair") == folder
    assert len(pair.requests) == asked == 2


def test_the_next_repository_is_tried(pair):
    fill(pair, "second/model")
    assert "models--second--model" in str(locate("pair"))
    assert pair.requests[0] == ("first/model", "unet/config.json", "a" * 40)


def test_a_cache_of_a_later_source_goes_before_downloading_from_the_first(pair):
    fill(pair, "second/model")
    locate("pair")
    fill(pair, "first/model")
    pair.requests.clear()
    assert "models--second--model" in str(locate("pair"))
    assert pair.requests == []


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:-1]], ids=["digest", "size"])
def test_a_wrong_file_from_the_hub_is_taken_out_of_the_cache(pair, caches, content):
    fill(pair, "first/model", content)
    with pytest.raises(
        WeightsError, match=r"first/model @ a+: unet/model.safetensors: has .*; second/model @ main: .*404"
    ):
        locate("pair")
    assert list(caches.rglob("model.safetensors")) == []
    assert all(path.read_bytes() != content for path in caches.rglob("*") if path.is_file())


def test_a_repository_that_the_user_names(pair):
    fill(pair, "someone/mirror", b"a fine-tuned one")
    folder = locate("pair", weights="someone/mirror", revision="v2")
    assert (folder / "unet" / "model.safetensors").read_bytes() == b"a fine-tuned one"
    # the second file is of the commit at which the first was found, wherever the tag is by then
    assert [revision for *_, revision in pair.requests] == ["v2", "f" * 40]


def test_a_revision_of_a_path_is_refused(pair, tmp_path):
    with pytest.raises(UsageError, match="is on this machine and has none"):
        locate("pair", weights=tmp_path, revision="v1")


def test_a_revision_that_the_user_names(pair):
    fill(pair, "first/model", b"an earlier one")
    locate("pair", revision="v1")
    assert pair.requests[0] == ("first/model", "unet/config.json", "v1")


def test_a_single_file_of_a_repository(hub, monkeypatch):
    source = HubSource("first/model", "main", (WeightFile("unet.safetensors", None, SHA256),))
    monkeypatch.setitem(MODELS, "single", Model("", "", (source,), ("unet.safetensors",), is_folder=False))
    hub.files["first/model", "unet.safetensors"] = CONTENT
    assert locate("single").name == "unet.safetensors"


def test_a_full_disk_in_the_hubs_cache(pair, caches):
    pair.error = RuntimeError("wrapped")
    pair.error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError, match=f"{re.escape(str(caches / 'hub'))} cannot be written: the disk is full"):
        locate("pair")


# without a network


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("how", ["argument", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_opens_no_socket(model, how, no_sockets, monkeypatch):
    if how != "argument":
        monkeypatch.setenv(how, "1")
    with pytest.raises(WeightsError, match=r"off \(offline\)\. Tried: .*not in the cache"):
        locate(model, offline=True if how == "argument" else None)


def test_the_argument_goes_before_the_environment(pair, monkeypatch):
    fill(pair, "first/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("pair", offline=False).is_dir()


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)])
def test_what_the_environment_says(value, offline, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert weights.is_offline() is offline


# paths and names


def test_a_path_goes_before_everything(tmp_path, no_sockets):
    assert locate("adm-256", weights=str(tmp_path)) == tmp_path
    (tmp_path / "model.pt").touch()
    assert locate("adm-256", weights=tmp_path / "model.pt") == tmp_path / "model.pt"


def test_a_path_that_is_not_there_is_not_taken_for_a_repository(tmp_path, monkeypatch, no_sockets):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for missing in ("nowhere/model.pt", "models/adm", str(tmp_path / "adm")):
        with pytest.raises(WeightsError, match=f"{re.escape(missing)}: there is no such file"):
            locate("adm-256", weights=missing)


def test_unknown_models_are_named():
    with pytest.raises(UsageError, match=r"no model sd3.*adm-256"):
        locate("sd3")


def test_a_revision_of_a_plain_url_is_refused():
    with pytest.raises(UsageError, match="no revisions"):
        locate("adm-256", revision="v1")


# the registry


def test_verify_tells_good_from_spoiled(server, tiny):
    with pytest.raises(WeightsError, match="models download tiny"):
        list(verify("tiny"))
    path = locate("tiny")
    assert [(check.path, check.problem, check.is_known) for check in verify("tiny")] == [(path, "", True)]
    path.write_bytes(CONTENT[::-1])
    assert "SHA-256" in next(verify("tiny")).problem
    path.write_bytes(b"short")
    assert "has 5 bytes" in next(verify("tiny", path)).problem


def test_verify_names_what_is_missing_and_what_is_not_known(pair):
    fill(pair, "first/model")
    folder = locate("pair")
    (folder / "unet" / "model.safetensors").unlink()
    checks = list(verify("pair", folder))
    assert [(check.problem, check.is_known) for check in checks] == [("", False), ("is missing", True)]


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_registry_is_well_formed(model):
    entry = MODELS[model]
    assert entry.summary
    assert entry.licence
    assert entry.sources
    for source in entry.sources:
        weight_files = [file for file in source.files if not file.name.endswith((".json", ".txt"))]
        assert weight_files
        for file in weight_files:
            assert (file.sha256 is None) == model.startswith(WITHOUT_DIGEST)
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_a_download_error_is_no_error_of_the_program():
    # it stays inside: another source may have the file
    assert not issubclass(DownloadError, WeightsError)


# asked first


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("told", ["", "never"])
def test_nothing_is_downloaded_unasked(server, tiny, monkeypatch, offline, told):
    monkeypatch.setenv(CONSENT, told)
    if not offline:
        with pytest.raises(
            WeightsError, match=r"nothing is downloaded unasked: .* GB, licence CC0, from http"
        ) as caught:
            locate("tiny")
        assert "propagate models download tiny --yes" in caught.value.remedy
        assert caught.value.exit_code == 4
    with asking(lambda question: False), pytest.raises(WeightsError):
        locate("tiny", offline=offline)
    assert server.ranges == []


def test_whoever_is_asked_hears_size_and_licence(server, tiny, monkeypatch):
    monkeypatch.delenv(CONSENT)
    questions = []
    with asking(lambda question: questions.append(question) or True):
        locate("tiny")
        locate("tiny")
    assert len(questions) == 1
    assert re.match(r"Download tiny \(.* GB, licence CC0, from http", questions[0])


def test_a_repository_that_is_named_needs_consent_too(pair, monkeypatch):
    monkeypatch.delenv(CONSENT)
    with pytest.raises(WeightsError, match="someone/mirror is not on this machine, and nothing is downloaded unasked"):
        locate("pair", weights="someone/mirror")
    assert pair.requests == []


def test_several_are_asked_for_in_one_question(server, tiny, monkeypatch):
    monkeypatch.delenv(CONSENT)
    other = UrlSource(server.url, WeightFile("other.pt", len(CONTENT), SHA256))
    monkeypatch.setitem(MODELS, "other", replace(tiny, sources=(other,)))
    wanted = [Wanted("tiny"), Wanted("other"), Wanted("tiny")]
    with pytest.raises(WeightsError, match=r"tiny and other are not on this machine, and nothing is downloaded") as no:
        obtain(wanted)
    assert "`propagate models download tiny --yes` and `propagate models download other --yes`" in no.value.remedy
    questions = []
    with asking(lambda question: questions.append(question) or True):
        obtain(wanted)
        obtain(wanted)
    assert len(questions) == 1
    assert re.match(r"Download tiny \(.*licence CC0.*\) and other \(", questions[0])
    assert len(server.ranges) == 2


def test_a_process_that_was_started_for_work_neither_asks_nor_downloads(server, tiny, monkeypatch):
    monkeypatch.setattr("propagate.weights.consent._forbidden", threading.Event())
    forbid()
    obtain([Wanted("tiny")])
    with asking(lambda question: pytest.fail("asked")), pytest.raises(WeightsError, match="no longer on this"):
        locate("tiny")
    assert server.ranges == []


def test_what_has_to_be_done_first_comes_first_in_the_remedy(tiny, monkeypatch):
    monkeypatch.delenv(CONSENT)
    wanted = Wanted("tiny", access="Accept its licence.")
    for attempt in (lambda: located(wanted), lambda: located(wanted, offline=True), lambda: obtain([wanted])):
        with pytest.raises(WeightsError) as caught:
            attempt()
        assert caught.value.remedy.startswith("Accept its licence. ")
        assert caught.value.remedy.count("Accept") == 1


def test_every_extractor_tells_its_weights_as_it_asks_for_them(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    silent = {"compact", "rgb"}  # theirs are in the package
    for name in set(EXTRACTORS) - silent:
        options = {"parts": [{"name": "dinov2", "weight": 2}, {"name": "dift_sd"}]} if name == "fusion" else {}
        wanted = wanted_weights(name, **options)
        assert wanted, name
        with pytest.raises(WeightsError, match=re.escape(wanted[0].name)):
            build_extractor(name, device="cpu", **options)
    assert [one.model for one in wanted_weights("fusion", parts=[{"name": "cleandift"}, {"name": "rgb"}])] == [
        "stable-diffusion-2-1",
        "cleandift",
    ]
    assert all(wanted_weights(name) == () for name in silent)
    with pytest.raises(UsageError, match=r"features\.parts\.0\.variant = nothing"):
        wanted_weights("fusion", parts=[{"name": "dino", "variant": "nothing"}])


# what was fetched from the hub first


@pytest.fixture
def moving(pair, monkeypatch) -> Hub:
    """The model `pair` of the branch `main`, without published digests, fetched once."""
    files = (WeightFile("unet/config.json"), WeightFile("unet/model.safetensors"))
    entry = replace(MODELS["pair"], sources=(HubSource("first/model", "main", files),))
    monkeypatch.setitem(MODELS, "pair", entry)
    fill(pair, "first/model")
    locate("pair")
    return pair


def move(hub: Hub, content: bytes) -> None:
    """The branch moves, and the hub's cache is emptied."""
    shutil.rmtree(hub.cache)
    hub.head = "e" * 40
    fill(hub, "first/model", content)


def test_files_of_the_hub_without_published_digest_are_known_from_the_first_fetch_on(moving):
    assert [(check.problem, check.is_known) for check in verify("pair")] == [("", True)] * 2
    (locate("pair") / "unet" / "model.safetensors").write_bytes(CONTENT[::-1])
    assert [bool(check.problem) for check in verify("pair")] == [False, True]


def test_a_branch_that_moved_with_the_same_files_is_said_once(moving):
    move(moving, CONTENT)
    with pytest.warns(PropagateWarning, match=f"moved from commit {'f' * 40} to {'e' * 40}; its files are the same"):
        locate("pair")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        locate("pair")


def test_a_repository_is_known_by_its_commit_also_when_its_files_are_gone(pair, caches):
    fill(pair, "someone/model")
    wanted = Wanted("pair", "someone/model")
    assert version_of(wanted) == ""
    locate("pair", weights="someone/model")
    assert version_of(wanted) == "f" * 40
    shutil.rmtree(caches / "hub")
    assert version_of(wanted) == "f" * 40
    pair.head = "e" * 40  # and another program fetches it
    for name in ("unet/config.json", "unet/model.safetensors"):
        pair.download("someone/model", name, revision="main")
    assert version_of(wanted) == "e" * 40


def test_a_branch_that_moved_to_other_files_is_refused_until_the_user_says_which(moving, caches):
    move(moving, CONTENT[::-1])
    for _ in range(2):  # fetched, and then found in the cache
        with pytest.raises(
            WeightsError, match=rf"model\.safetensors differs from the first download \(commit {'f' * 40}"
        ) as no:
            locate("pair")
        assert f"features.revision={'f' * 40}" in no.value.remedy
    record = next((caches / "cache" / "dift-propagate" / "hub").iterdir())
    assert str(record) in no.value.remedy
    record.unlink()
    assert (locate("pair") / "unet" / "model.safetensors").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": "other"}', b"\xff"])
def test_a_damaged_record_of_the_hub_is_told(moving, caches, content):
    record = next((caches / "cache" / "dift-propagate" / "hub").iterdir())
    record.write_bytes(content)
    with pytest.raises(WeightsError, match="record of a download") as caught:
        locate("pair")
    assert "Delete it" in caught.value.remedy
