from __future__ import annotations

import os

import pytest
import torch

from propagate.files.checked_tensors import DamagedError, is_marked, read_tensor, write_tensor

KIND = "tests 1"


@pytest.fixture
def path(tmp_path):
    write_tensor(tmp_path / "a.safetensors", torch.arange(24.0).view(2, 3, 4), KIND)
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_tensors_come_back_bit_for_bit(path, dtype):
    made = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).to(dtype).t()
    write_tensor(path, made, KIND)
    found = read_tensor(path, KIND)
    assert found is not None
    assert found.dtype == dtype
    assert torch.equal(found, made)
    assert is_marked(path, KIND)


def test_every_flipped_byte_is_found(path):
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = read_tensor(path, KIND)
        except DamagedError:
            continue
        assert found is not None  # a byte of the header that means nothing
        assert torch.equal(found, torch.arange(24.0).view(2, 3, 4)), place


@pytest.mark.parametrize("content", [b"", b"\0" * 4000, b"\x08\0\0\0\0\0\0\0not json", b"\xff" * 20])
def test_what_is_no_tensor_is_damaged(path, content):
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_tensor(path, KIND)
    assert not is_marked(path, KIND)


def test_what_is_missing_is_none(tmp_path):
    assert read_tensor(tmp_path / "a", KIND) is None
    assert not is_marked(tmp_path / "a", KIND)


def test_another_kind_and_another_name_are_damage(path):
    with pytest.raises(DamagedError):
        read_tensor(path, "tests 2")
    path.rename(path.with_name("b.safetensors"))
    with pytest.raises(DamagedError):
        read_tensor(path.with_name("b.safetensors"), KIND)


def test_links_are_not_followed(path):
    link = path.with_name("b.safetensors")
    write_tensor(path, torch.ones(2), KIND, link.name)
    link.symlink_to(path)
    with pytest.raises(DamagedError):
        read_tensor(link, KIND)
    assert not is_marked(link, KIND)


@pytest.mark.parametrize("make", ["mkdir", "fifo"])
def test_a_folder_and_a_pipe_are_damage(tmp_path, make):
    place = tmp_path / "b.safetensors"
    if make == "mkdir":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(DamagedError, match="it is not a regular file"):
        read_tensor(place, KIND)
    assert not is_marked(place, KIND)
