from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch import nn
from torch._dynamo.exc import InternalTorchDynamoError
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from propagate.errors import UsageError
from propagate.features import build_extractor
from propagate.features.device import compile_blocks, computes_in_bfloat16, resolve_device, resolve_dtype
from propagate.planning.dry_run import dry_run
from tests.places import PARITY_DATA

CPU = torch.device("cpu")
DATA = PARITY_DATA
SD_TINY, VIT_TINY = DATA / "sd_tiny_0" / "pipeline", DATA / "vit_tiny_0" / "dino_hf"


@pytest.mark.parametrize(
    ("told", "expected"),
    [(set(), False), ({"_is_avx512_bf16_supported"}, True), ({"_is_amx_tile_supported"}, True)],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, told, expected):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in told, raising=False)
    assert computes_in_bfloat16(CPU) is expected
    assert resolve_dtype("auto", CPU) == (torch.bfloat16 if expected else torch.float32)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_computes_in_bfloat16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_in_bfloat16(torch.device("cuda")) is expected


def test_of_other_devices_it_is_not_known():
    assert not computes_in_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_named_precision_is_taken(name):
    assert resolve_dtype(name, CPU) == getattr(torch, name)


def test_compact_takes_what_the_device_computes_in(monkeypatch):
    for supported, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported, raising=False
        )
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        assert build_extractor("compact", device="cpu").dtype == dtype
    assert build_extractor("compact", dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="no such kind of device"):
        resolve_device("abacus")


class Net(nn.Module):
    """Blocks in a list, a block by itself, and a lone layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU()) for _ in range(3))
        self.last = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1)), nn.SiLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.first(images)
        for block in self.blocks:
            hidden = block(hidden)
        return self.last(hidden)


@pytest.fixture
def compiled(monkeypatch):
    """What is given to the compiler, which is none."""
    given: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda forward: given.append(forward.__self__) or forward)
    return given


@pytest.mark.parametrize(
    ("tap", "expected"),
    [
        ("", [""]),
        ("blocks.1", ["blocks.0", "blocks.1", "blocks.2", "last"]),  # its own hook is called outside
        ("blocks.1.0", ["blocks.0", "blocks.2", "last"]),
        ("last.0.0", ["blocks.0", "blocks.1", "blocks.2"]),
    ],
)
def test_the_largest_parts_without_a_tap_inside_are_compiled(compiled, tap, expected):
    net = Net()
    compile_blocks(net, net.get_submodule(tap))
    assert compiled == [net.get_submodule(name) for name in expected]


@pytest.mark.parametrize(
    "error",
    [InductorError(InvalidCxxCompiler("No working C++ compiler"), None), InternalTorchDynamoError("No working C++")],
)
def test_what_cannot_be_compiled_is_explained(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    net = Net()
    compile_blocks(net)
    with pytest.raises(UsageError, match=r"features\.compile = true: .* cannot be compiled here .*C\+\+") as told:
        net(torch.rand(1, 3, 4, 4))
    assert "C++ compiler" in told.value.remedy


def test_other_errors_of_a_compiled_network_stay_what_they_are(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    net = Net()
    compile_blocks(net)
    with pytest.raises(torch.OutOfMemoryError):
        net(torch.rand(1, 3, 4, 4))


def test_a_dry_run_compiles_nothing(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda _: lambda *_: pytest.fail("compiled"))
    net, plain = Net(), Net()
    compile_blocks(net)
    assert dry_run(lambda: net(torch.empty(1, 3, 8, 8))) == dry_run(lambda: plain(torch.empty(1, 3, 8, 8)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("compact", {"dtype": "float32"}),
        ("dift_sd", {"weights": SD_TINY, "ensemble_size": 1, "up_ft_index": 1}),
        ("dino", {"weights": VIT_TINY, "facet": "key"}),
    ],
)
def test_compiled_features_are_the_same(monkeypatch, name, options):
    """By the compiler's own backend that runs operations one by one: what a C++ compiler makes of them is its own."""
    torch._dynamo.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the compiler cannot look through the checks
    original, calls = torch.compile, []

    def counting(graph, inputs):
        calls.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda forward: original(forward, backend=counting))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = build_extractor(name, device="cpu", **options)(images)
    extractor = build_extractor(name, device="cpu", compile=True, **options)
    torch.testing.assert_close(extractor(images), plain, atol=1e-5, rtol=1e-4)
    assert calls
    count = len(calls)
    extractor(images)
    assert len(calls) == count  # the second picture of a size waits for nothing
