"""Networks from weight files: read without running anything, fitted without a gap, and only what is needed kept."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from propagate.errors import WeightsError
from propagate.features.networks.configs import NetworkConfig, checked_config
from propagate.files.documents import check_regular_file, read_json

_AGAIN = "Fetch the file again."
_WRAPPERS = 4  # a state dict inside another, at most


@dataclass(frozen=True)
class Component:
    """One network of a pipeline: its config, and where its weights are. Nothing is read before `read` is called.

    Attributes:
        config: known keys of its `config.json`, checked.
        source: where the config comes from.
        files: the weight files.
        read: state dict under the names of the network's class.
    """

    config: Mapping[str, Any]
    source: Path
    files: tuple[Path, ...]
    read: Callable[[], dict[str, Tensor]]


def folder_component(folder: Path, kind: type[NetworkConfig], network: type[Any] | None = None) -> Component:
    """The network in one folder of a pipeline in diffusers' layout.

    Its weights may be whole or in shards, full or half precision ("fp16" in the name); safetensors go before pickles.

    Args:
        folder: the folder.
        kind, network: see `checked_config`.

    Raises:
        WeightsError: there is no config, one of another network, or no weights beside it.
    """
    source = folder / "config.json"
    config = checked_config(kind, read_config(source), source, network)
    files = weight_files(folder)
    if not files:
        raise WeightsError(f"{folder} has a config but no weights (.safetensors).", "Fetch the whole pipeline.")
    return Component(config, source, files, lambda: read_shards(files))


def read_shards(files: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of several files; raises as `read_tensors`."""
    return {name: value for file in files for name, value in read_tensors(file).items()}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of the one set of weights to take from a folder; empty where it has none.

    Raises:
        WeightsError: an index is damaged, or names what is no file of the folder.
    """
    for index in (*sorted(folder.glob("*.safetensors.index.json")), *sorted(folder.glob("*.bin.index.json"))):
        shards = read_config(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise WeightsError(f"{index} has no weight_map.", _AGAIN)
        for name in shards.values():
            if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
                raise WeightsError(f"{index} names {name!r}, which is not a file of its folder.", _AGAIN)
        return tuple(folder / name for name in sorted(set(shards.values())))
    whole = sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin")), key=_preference)
    return tuple(whole[:1])


def _preference(path: Path) -> tuple[bool, int, str]:
    # the plain name, in full precision, is shorter than its variants (fp16, non_ema)
    return path.suffix != ".safetensors", len(path.name), path.name


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file with an object in it.

    Raises:
        WeightsError: it is missing or damaged.
    """
    config = read_json(path, "config", WeightsError)
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a JSON object.", _AGAIN)
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickled checkpoint that holds nothing but plain data.

    Raises:
        WeightsError: as `read_checkpoint`, or it holds no state dict.
    """
    content = read_checkpoint(path)
    for _ in range(_WRAPPERS):
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no state dict.", "Use the model's .safetensors file.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_checkpoint(path: Path) -> Any:
    """What a .safetensors file or a pickled checkpoint of plain data holds.

    Pickles are read by torch's restricted reader, which runs nothing.

    Raises:
        WeightsError: the file is missing, damaged, a pickle that wants to run code, or has a tensor without values.
    """
    check_regular_file(path, "weight file", WeightsError)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of pickles it then refuses
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is a pickle with more than tensors in it, or damaged. It is not loaded: a pickle can run code.",
            "Use the model's .safetensors file.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file leads to inside the readers
        raise WeightsError(f"{path} is damaged or not a weight file ({error}).", _AGAIN) from error
    _check_tensors(content, path)
    return content


def _check_tensors(content: Any, path: Path) -> None:
    """Refuse tensors that claim values which the file does not hold: empty, repeated, sparse, or without content."""
    waiting, seen = [(content, "")], set[int]()
    while waiting:
        value, name = waiting.pop()
        if isinstance(value, dict):
            if id(value) in seen:  # a pickle can hold a dictionary inside itself
                continue
            seen.add(id(value))
            waiting += [(inner, str(key)) for key, inner in value.items()]
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                problem = f"is {value.layout} on {value.device}"
            elif not value.numel() or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                problem = f"has the shape {tuple(value.shape)} without as many values"
            else:
                continue
            raise WeightsError(f"{path}: the tensor {name} {problem}.", _AGAIN)


def check_fits(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Names and shapes have to be the network's, all of them and no others.

    Raises:
        WeightsError: they are not, or not of floating-point numbers; the message names the first difference.
    """
    own = network.state_dict()
    for name, value in tensors.items():
        if not value.is_floating_point() and name in own and own[name].is_floating_point():
            raise WeightsError(
                f"{source}: {name} holds {str(value.dtype).removeprefix('torch.')}, not floating-point numbers.",
                "Name weights that are not quantized.",
            )
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected == found:
        return
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            break
    here = f"has the shape {found[name]}" if name in found else "is missing"
    there = f"should have the shape {expected[name]}" if name in expected else "does not belong there"
    raise WeightsError(
        f"{source} does not hold the weights of its config's {type(network).__name__}: {name} {here}, it {there}.",
        "Config and weights have to be of the same model.",
    )


def assign(network: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
    """Give a network built on the meta device its weights, one tensor after the other; what it lacks is left unread."""
    wanted = {name: tensors[name].to(device, dtype) for name in network.state_dict()}
    network.load_state_dict(wanted, assign=True)
    network.eval().requires_grad_(False)
    # not diffusers' own `to`: it warns of casting even where there is nothing to warn of
    nn.Module.to(network, device, dtype, memory_format=memory_format(dtype))  # type: ignore[call-overload]


def memory_format(dtype: torch.dtype) -> torch.memory_format:
    """How pictures and convolutions lie in memory.

    Channels last is the faster way; on a CPU in float32 it rounds ten times as much as the way the reference takes
    (5e-6 against 3e-7 relative, of the latents), so it is for the rougher types.
    """
    return torch.contiguous_format if dtype == torch.float32 else torch.channels_last
