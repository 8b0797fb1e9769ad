from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from propagate.errors import WeightsError
from propagate.features.networks.loading import check_fits, read_checkpoint, read_config, read_tensors, weight_files


def index(folder, names) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "", "..", "a\0", 3, ["a"], None]
)
def test_an_index_names_files_of_its_folder_alone(tmp_path, name):
    index(tmp_path, {"weight": name})
    with pytest.raises(WeightsError, match="which is not a file of its folder"):
        weight_files(tmp_path)


@pytest.mark.parametrize("names", [None, [], {}, "x"])
def test_an_index_without_files_is_refused(tmp_path, names):
    index(tmp_path, names)
    with pytest.raises(WeightsError, match="has no weight_map"):
        weight_files(tmp_path)


def test_an_index_gives_its_files_once(tmp_path):
    index(tmp_path, {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"})
    assert [path.name for path in weight_files(tmp_path)] == ["1.safetensors", "2.safetensors"]


@pytest.mark.parametrize("text", ['{"a":' * 5000, "[1]", "\ufeff", "1" * 5000, '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_a_damaged_config_is_an_error_of_the_weights(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(10**12, 0),
        torch.zeros(1).expand(10**12),
        torch.zeros(2, 2).to_sparse(),
        torch.empty(3, device="meta"),
    ],
    ids=["empty", "repeated", "sparse", "meta"],
)
def test_tensors_that_hold_less_than_they_claim_are_refused(tmp_path, tensor):
    torch.save({"state_dict": {"weight": tensor}}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"the tensor weight"):
        read_tensors(tmp_path / "a.pt")


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    around: dict = {"weight": torch.ones(2)}
    around["state_dict"] = around
    torch.save(around, tmp_path / "a.pt")
    assert list(read_tensors(tmp_path / "a.pt")) == ["weight"]


def test_views_of_larger_tensors_are_whole(tmp_path):
    torch.save({"a": torch.arange(6.0).view(2, 3).t()[1:]}, tmp_path / "a.pt")
    assert read_tensors(tmp_path / "a.pt")["a"].tolist() == [[1, 4], [2, 5]]


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"PK\x03\x04", b"\x80\x02."]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_files_are_refused(tmp_path, content, suffix):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.(pt|safetensors)"):
        read_checkpoint(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_quantized_weights_are_refused(tmp_path, dtype):
    save_file({"weight": torch.ones(2, 3).to(dtype), "bias": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"weight holds .*not floating-point"):
        check_fits(nn.Linear(3, 2), read_tensors(tmp_path / "a.safetensors"), "here")
