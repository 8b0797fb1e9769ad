"""The file of learned prompts (.safetensors), for use on other clips."""

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
_REMEDY = "Leave features.embedding out, and prompts are learned on the first frame."


class _Metadata(BaseModel):
    model_config = ConfigDict(strict=True)

    names: list[str]
    model: str
    settings: dict[str, Any]
    losses: dict[str, list[list[float]]]


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """Learned embeddings."""

    embeddings: Mapping[str, Float[Tensor, "_ n d"]]  # joint or object id -> (restarts, vectors, width) float32
    model: str  # fingerprint of the U-Net
    settings: Mapping[str, Any]  # of the learning
    losses: Mapping[str, tuple[tuple[float, ...], ...]]  # of every step, for every restart

    def save(self, path: Path) -> None:
        """Write the file; raises OSError if it cannot be written."""
        names = list(self.embeddings)
        metadata = {
            "format": _FORMAT,
            "names": json.dumps(names),
            "model": self.model,
            "settings": json.dumps(dict(self.settings)),
            "losses": json.dumps(dict(self.losses)),
        }
        # joint names can be any text, so tensors are numbered
        save_file({f"prompt.{n}": self.embeddings[name].contiguous() for n, name in enumerate(names)}, path, metadata)


def load_prompts(path: Path, *, model: str, width: int, layers: list[list[int]]) -> LearnedPrompts:
    """Load a file of `LearnedPrompts.save` for a U-Net (its fingerprint and width of prompts) and attention layers.

    Raises:
        InputError: the file is missing, something else, or learned with another model or other layers.
    """
    source = f"features.embedding = {path}"
    if not path.exists():
        raise InputError(f"{source}: there is no such file.", _REMEDY)
    check_regular_file(path, "embedding")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dictionary
    except (OSError, SafetensorError) as error:
        raise InputError(f"{source}: damaged or not a .safetensors file ({error}).", _REMEDY) from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{source}: the file holds no learned prompts.", _REMEDY)
    parsed = {key: parse_json(metadata.get(key, "null"), f"{source}: {key}") for key in ("names", "settings", "losses")}
    try:
        known = _Metadata.model_validate({**parsed, "model": metadata.get("model")})
    except ValidationError as error:
        cause = error.errors()[0]
        raise InputError(f"{source}: damaged ({cause['loc'][0]}: {cause['msg']}).", _REMEDY) from error
    embeddings = {name: tensors.get(f"prompt.{n}") for n, name in enumerate(known.names)}
    complete = {name: value for name, value in embeddings.items() if value is not None and _is_embedding(value)}
    if not complete or len(complete) != len(known.names):
        raise InputError(f"{source}: damaged: some of its prompts are missing.", _REMEDY)
    widths = {embedding.shape[-1] for embedding in complete.values()}
    if widths != {width}:
        raise InputError(
            f"{source}: its prompts are {', '.join(map(str, sorted(widths)))} wide, this model's are {width}.",
            "Name the model that they were learned with in features.weights.",
        )
    if known.model != model:
        raise InputError(
            f"{source}: its prompts were learned with other weights than these.",
            "Name the file or folder that they were learned with in features.weights. Files of versions that knew "
            f"weights by samples cannot be compared: for those, learn them again. {_REMEDY}",
        )
    if (learned := known.settings.get("layers")) != layers:
        raise InputError(
            f"{source}: its prompts were learned with features.layers = {learned}, not {layers}.",
            "Set features.layers to those.",
        )
    losses = {name: tuple(map(tuple, runs)) for name, runs in known.losses.items()}
    return LearnedPrompts(complete, known.model, known.settings, losses)


def _is_embedding(value: Tensor) -> bool:
    """Return whether a tensor is (restarts, vectors, width) finite numbers."""
    return value.ndim == 3 and value.dtype == torch.float32 and value.numel() > 0 and bool(value.isfinite().all())
