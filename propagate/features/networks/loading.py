"""Networks from weight files: read without running code, checked for completeness, stripped to what is needed."""

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
_WRAPPERS = 4  # most state dicts inside one another


@dataclass(frozen=True)
class Component:
    """One network of a pipeline, not loaded."""

    config: Mapping[str, Any]  # known keys of its `config.json`, checked
    source: Path  # file of the config
    files: tuple[Path, ...]  # of the weights
    read: Callable[[], dict[str, Tensor]]  # loads the state dict, under the names of the network's class


def folder_component(folder: Path, kind: type[NetworkConfig], network: type[Any] | None = None) -> Component:
    """Open the network in one folder of a pipeline in diffusers' layout; see `weight_files` and `checked_config`."""
    source = folder / "config.json"
    config = checked_config(kind, read_config(source), source, network)
    files = weight_files(folder)
    if not files:
        raise WeightsError(f"{folder} has a config but no weights (.safetensors).", "Fetch the whole folder.")
    return Component(config, source, files, lambda: read_shards(files))


def read_shards(files: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of several files; raises as `read_tensors`."""
    return {name: value for file in files for name, value in read_tensors(file).items()}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of one set of weights, whole or in shards; empty if the folder has none.

    Safetensors are preferred to pickles, and full precision to "fp16" and other variants. An index that is damaged or
    names a file outside the folder is a WeightsError.
    """
    for index in (*sorted(folder.glob("*.safetensors.index.json")), *sorted(folder.glob("*.bin.index.json"))):
        shards = read_config(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise WeightsError(f"{index} has no weight_map.", _AGAIN)
        for name in shards.values():
            if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
                raise WeightsError(f"{index} names {name!r}, which is not a file of its folder.", _AGAIN)
        return tuple(folder / name for name in sorted(set(shards.values())))
    whole = (*folder.glob("*.safetensors"), *folder.glob("*.bin"))
    # the plain name is shorter than its variants (fp16, non_ema)
    return tuple(sorted(whole, key=lambda path: (path.suffix != ".safetensors", len(path.name), path.name))[:1])


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, or raise a WeightsError."""
    config = read_json(path, "config", WeightsError)
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a JSON object.", _AGAIN)
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a .safetensors file or of a pickled checkpoint; see `read_checkpoint`."""
    content = read_checkpoint(path)
    for _ in range(_WRAPPERS):
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no state dict.", "Use the model's .safetensors file.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_checkpoint(path: Path) -> Any:
    """Read a .safetensors file, or a pickled checkpoint of plain data with torch's restricted reader.

    Raises:
        WeightsError: the file is missing, damaged, a pickle that wants to run code, or has a tensor without values.
    """
    check_regular_file(path, "weight file", WeightsError)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of pickles that it then refuses
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is a pickle with more than tensors in it, or damaged. It is not loaded: a pickle can run code.",
            "Use the model's .safetensors file.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # the readers raise anything for a damaged file
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


def check_fits(network: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise a WeightsError that names the first difference if tensors have other names or shapes than a network."""
    own = network.state_dict()
    floating = {name for name, value in own.items() if value.is_floating_point()}
    check_floating({name: value for name, value in tensors.items() if name in floating}, source)
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            here = f"has the shape {found[name]}" if name in found else "is missing"
            there = f"should have the shape {expected[name]}" if name in expected else "does not belong there"
            raise unfit(source, type(network).__name__, f"{name} {here}, it {there}")


def check_floating(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise a WeightsError if a tensor is quantized."""
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise WeightsError(
                f"{source}: {name} holds {str(value.dtype).removeprefix('torch.')}, not floating-point numbers.",
                "Name weights that are not quantized.",
            )


def unfit(source: object, network: str, problem: str) -> WeightsError:
    """Return the error for weights that do not fit their config."""
    return WeightsError(
        f"{source} does not hold the weights of its config's {network}: {problem}.",
        "Config and weights have to be of the same model.",
    )


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Check the weights of a network on the meta device and load them in float32, in evaluation mode."""
    check_fits(network, tensors, source)
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    network.eval().requires_grad_(False)


def assign(network: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
    """Load checked weights into a network on the meta device, one tensor at a time, without those it has dropped."""
    needed = {name: tensors[name].to(device, dtype) for name in network.state_dict()}
    network.load_state_dict(needed, assign=True)
    network.eval().requires_grad_(False)
    # not diffusers' own `to`, which warns of casting without need
    nn.Module.to(network, device, dtype, memory_format=memory_format(dtype))  # type: ignore[call-overload]


def memory_format(dtype: torch.dtype) -> torch.memory_format:
    """Return the memory format of convolutions: channels last is faster, but rounds more in float32 on a CPU.

    (5e-6 against 3e-7 relative, of the latents; 3e-7 is the reference's format.)
    """
    return torch.contiguous_format if dtype == torch.float32 else torch.channels_last
