"""Learned prompts and the file they are kept in (.safetensors), to be used again on other clips."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from propagate.errors import InputError
from propagate.files.documents import check_regular_file, parse_json

_FORMAT = "propagate learned prompts 1"
_OTHERWISE = "Leave features.embedding out, and prompts are learned on the first frame."


class _About(BaseModel):
    """What the metadata of a file says."""

    model_config = ConfigDict(strict=True)

    names: list[str]
    model: str
    settings: dict[str, Any]
    losses: dict[str, list[list[float]]]


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """An embedding per joint or object.

    Attributes:
        embeddings: name of the joint, or the object's id as text, to (restarts, vectors, width) float32.
        model: fingerprint of the U-Net they were learned with.
        settings: with which they were learned; of no effect on their use, but for "layers".
        losses: of every restart, the loss of every step.
    """

    embeddings: Mapping[str, Float[Tensor, "_ n d"]]
    model: str
    settings: Mapping[str, Any]
    losses: Mapping[str, tuple[tuple[float, ...], ...]]

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            OSError: it cannot be written.
        """
        names = list(self.embeddings)
        about = {
            "format": _FORMAT,
            "names": json.dumps(names),
            "model": self.model,
            "settings": json.dumps(dict(self.settings)),
            "losses": json.dumps(dict(self.losses)),
        }
        # names of joints are any text; tensors are numbered instead
        save_file({f"prompt.{n}": self.embeddings[name].contiguous() for n, name in enumerate(names)}, path, about)


def load_prompts(path: Path, *, model: str, width: int, layers: list[list[int]]) -> LearnedPrompts:
    """The prompts of a file.

    Args:
        path: as `LearnedPrompts.save` wrote it.
        model: fingerprint of the U-Net they are to be used with.
        width: of a vector of its prompts.
        layers: whose attention is looked at.

    Raises:
        InputError: there is no such file, it holds no learned prompts, or they are of another model or other layers.
    """
    source = f"features.embedding = {path}"
    if not path.exists():
        raise InputError(f"{source}: there is no such file.", _OTHERWISE)
    check_regular_file(path, "embedding")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dictionary
    except (OSError, SafetensorError) as error:
        raise InputError(f"{source}: damaged or not a .safetensors file ({error}).", _OTHERWISE) from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{source}: the file holds no learned prompts.", _OTHERWISE)
    parsed = {key: parse_json(metadata.get(key, "null"), f"{source}: {key}") for key in ("names", "settings", "losses")}
    try:
        about = _About.model_validate({**parsed, "model": metadata.get("model")})
    except ValidationError as error:
        cause = error.errors()[0]
        raise InputError(f"{source}: damaged ({cause['loc'][0]}: {cause['msg']}).", _OTHERWISE) from error
    embeddings = {name: tensors.get(f"prompt.{n}") for n, name in enumerate(about.names)}
    whole = {name: value for name, value in embeddings.items() if value is not None and _is_embedding(value)}
    if not whole or len(whole) != len(about.names):
        raise InputError(f"{source}: damaged: its prompts are not all there.", _OTHERWISE)
    losses = {name: tuple(map(tuple, runs)) for name, runs in about.losses.items()}
    prompts = LearnedPrompts(whole, about.model, about.settings, losses)
    _check(prompts, path, model=model, width=width, layers=layers)
    return prompts


def _is_embedding(value: Tensor) -> bool:
    """Whether a tensor is (restarts, vectors, width) finite numbers."""
    return value.ndim == 3 and value.dtype == torch.float32 and value.numel() > 0 and bool(value.isfinite().all())


def _check(prompts: LearnedPrompts, path: Path, *, model: str, width: int, layers: list[list[int]]) -> None:
    found = {embedding.shape[-1] for embedding in prompts.embeddings.values()}
    if found != {width}:
        wide = ", ".join(map(str, sorted(found))) or "nothing"
        raise InputError(
            f"features.embedding = {path}: its prompts are {wide} wide, this model's are {width}.",
            "Name the model that they were learned with in features.weights.",
        )
    if prompts.model != model:
        raise InputError(
            f"features.embedding = {path}: its prompts were learned with other weights than these.",
            "Name the file or folder that they were learned with in features.weights. Files of versions that knew "
            f"weights by samples cannot be compared: for those, learn them again. {_OTHERWISE}",
        )
    if prompts.settings.get("layers") != layers:
        raise InputError(
            f"features.embedding = {path}: its prompts were learned with features.layers = "
            f"{prompts.settings.get('layers')}, not {layers}.",
            "Set features.layers to those.",
        )
