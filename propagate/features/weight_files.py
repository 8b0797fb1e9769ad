"""Networks from weight files: read without running anything, fitted without a gap, and only what is needed kept."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from propagate.errors import WeightsError

_AGAIN = "Fetch the file again."
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


@dataclass(frozen=True)
class Component:
    """One network of a pipeline: its config, and where its weights are. Nothing is read before `read` is called.

    Attributes:
        config: as in its `config.json`.
        files: the weight files.
        read: state dict under the names of the network's class.
    """

    config: Mapping[str, Any]
    files: tuple[Path, ...]
    read: Callable[[], dict[str, Tensor]]


def folder_component(folder: Path) -> Component:
    """The network in one folder of a pipeline in diffusers' layout.

    Its weights may be whole or in shards, full or half precision ("fp16" in the name); safetensors go before pickles.

    Raises:
        WeightsError: there is no config, or no weights beside it.
    """
    config = read_config(folder / "config.json")
    files = weight_files(folder)
    if not files:
        raise WeightsError(f"{folder} has a config but no weights (.safetensors).", "Fetch the whole pipeline.")
    return Component(
        config, files, lambda: {name: value for file in files for name, value in read_tensors(file).items()}
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of the one set of weights to take from a folder; empty where it has none."""
    for index in (*sorted(folder.glob("*.safetensors.index.json")), *sorted(folder.glob("*.bin.index.json"))):
        return tuple(folder / name for name in sorted(set(read_config(index).get("weight_map", {}).values())))
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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"There is no {path}.", "Name the folder of a pipeline in diffusers' layout.") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable JSON file ({error}).", _AGAIN) from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a JSON object.", _AGAIN)
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickled checkpoint that holds nothing but plain data.

    Raises:
        WeightsError: as `read_checkpoint`, or it holds no state dict.
    """
    content = read_checkpoint(path)
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no state dict.", "Use the model's .safetensors file.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_checkpoint(path: Path) -> Any:
    """What a .safetensors file or a pickled checkpoint of plain data holds.

    Pickles are read by torch's restricted reader, which runs nothing.

    Raises:
        WeightsError: the file is missing, damaged, or a pickle that wants to run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no {path}.", "Check the path.") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is a pickle with more than tensors in it, or damaged. It is not loaded: a pickle can run code.",
            "Use the model's .safetensors file.",
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged or not a weight file ({error}).", _AGAIN) from error


def check_fits(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Names and shapes have to be the network's, all of them and no others.

    Raises:
        WeightsError: they are not; the message names the first difference.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
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


def fingerprint(files: tuple[Path, ...]) -> str:
    """A hash of the files' sizes and of samples all over them: tells models apart without reading gigabytes.

    Raises:
        WeightsError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{size} ".encode())
                for sample in range(_SAMPLES):
                    file.seek(max(size - _SAMPLE_BYTES, 0) * sample // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise WeightsError(
                f"{path} is not a readable weight file ({error.strerror}).", "Check the path."
            ) from error
    return digest.hexdigest()
