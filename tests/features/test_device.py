from __future__ import annotations

import pytest
import torch

from propagate.errors import UsageError
from propagate.features import build_extractor
from propagate.features.device import computes_in_bfloat16, resolve_device, resolve_dtype

CPU = torch.device("cpu")


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
