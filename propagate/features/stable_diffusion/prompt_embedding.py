"""The prompt's embedding: computed once by the text encoder, then cached on disk.

The cache file is named by the prompt, the text encoder's weights and the tokenizer. A second file is named by the U-Net
of the pipeline: with it a pipeline works without a text encoder (0.7 GB of Stable Diffusion 2.1).
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from propagate.errors import UsageError, WeightsError
from propagate.features.networks.configs import MODEL_REMEDY, ClipTextConfig, building
from propagate.features.networks.loading import Component, check_fits
from propagate.features.networks.local_files import fingerprint
from propagate.features.networks.tokenizer_files import load_tokenizer
from propagate.files.checked_tensors import DamagedError, read_tensor, write_tensor
from propagate.weights.locating import cache_folder

_KIND = "propagate prompt 1"
# in text encoder files, but not needed for the last hidden state
_UNUSED = ("text_projection.weight", "logit_scale", "embeddings.position_ids")


@dataclass(frozen=True)
class TextEncoder:
    """CLIP's text model with its tokenizer, not loaded."""

    network: Component
    tokenizer: Path | None  # folder; None: only the empty prompt can be embedded
    padding: int | None = None  # without a tokenizer: token id after the end of the text; None: the end token again

    def identity(self) -> str:
        """Return a hash of the weights, the config and the tokenizer."""
        digest = hashlib.sha256(json.dumps([dict(self.network.config), self.padding], sort_keys=True).encode())
        for name, tensor in sorted(self.network.read().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for path in sorted(self.tokenizer.iterdir()) if self.tokenizer is not None and self.tokenizer.is_dir() else ():
            if path.is_file():  # no folder, pipe or device
                digest.update(os.fsencode(path.name) + path.read_bytes())
        return digest.hexdigest()

    def token_ids(self, prompt: str) -> Int[Tensor, "1 n"]:
        """Return the prompt's tokens, padded to the text model's length.

        The padding follows from the tokenizer's files (0 in Stable Diffusion 2, the end token in 1). A prompt that is
        too long is a UsageError; a tokenizer that is missing or does not fit the text model is a WeightsError.
        """
        config = ClipTextConfig(**self.network.config)
        length = config.max_position_embeddings
        if self.tokenizer is None:
            if prompt:
                raise WeightsError(
                    f"features.prompt = {prompt!r}: a checkpoint file has no tokenizer.",
                    "Name a pipeline folder with one in features.config, or leave the prompt empty.",
                )
            start, end = (config.vocab_size + offset for offset in (-2, -1))
            padding = end if self.padding is None else self.padding
            return torch.tensor([[start, end] + [padding] * (length - 2)])
        tokenizer = load_tokenizer(self.tokenizer, _transformers().CLIPTokenizer)
        with building(self.tokenizer, "CLIP tokenizer"):
            ids: Tensor = tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt").input_ids
        if ids.numel() > length:
            raise UsageError(
                f"features.prompt has {ids.numel()} tokens, and the text encoder takes {length}.", "Shorten it."
            )
        if tuple(ids.shape) != (1, length) or not 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size:
            raise WeightsError(
                f"{self.tokenizer} gives tokens that the text encoder does not have.",
                "Tokenizer and text encoder have to be of the same model.",
            )
        return ids

    @torch.no_grad()
    def embed(self, prompt: str) -> Float[Tensor, "1 n d"]:
        """Return the last hidden state of a prompt after the final norm: float32, without an attention mask."""
        library = _transformers()
        with building(self.network.source, "CLIP text model", MODEL_REMEDY):
            config = library.CLIPTextConfig(**self.network.config)
            with torch.device("meta"):
                empty = library.CLIPTextModel(config)
        # transformers 5.6 dropped the prefix that the files have
        prefix = "text_model." if any(name.startswith("text_model.") for name in empty.state_dict()) else ""
        tensors = {name.removeprefix("text_model."): value.float() for name, value in self.network.read().items()}
        tensors = {prefix + name: value for name, value in tensors.items() if name not in _UNUSED}
        check_fits(empty, tensors, str(self.network.files[0]))
        with building(self.network.source, "CLIP text model", MODEL_REMEDY):
            model = library.CLIPTextModel(config).eval()  # as large as the files, which check_fits has made sure of
        model.load_state_dict(tensors, assign=True)
        embedding: Tensor = model(self.token_ids(prompt)).last_hidden_state
        return embedding


def prompt_embedding(prompt: str, encoder: TextEncoder | None, unet_files: tuple[Path, ...]) -> Float[Tensor, "1 n d"]:
    """Return the prompt's embedding (1, tokens, width) float32 from the cache, or else from the text encoder."""
    own = _entry(prompt, fingerprint(unet_files))
    cached = _read(own)
    if encoder is None:
        if cached is None:
            raise WeightsError(
                f"The pipeline has no text encoder, and no earlier run left the embedding of the prompt {prompt!r}.",
                "Fetch its text_encoder and tokenizer once.",
            )
        return cached
    entry = _entry(prompt, encoder.identity())
    embedding = _read(entry)
    if embedding is None:
        embedding = encoder.embed(prompt)
        _write(entry, embedding)
    if cached is None or not torch.equal(cached, embedding):
        _write(own, embedding)
    return embedding


def _entry(prompt: str, model: str) -> Path:
    name = hashlib.sha256(f"{model} {prompt}".encode()).hexdigest()
    return cache_folder() / "prompts" / f"{name}.safetensors"


def _read(path: Path) -> Float[Tensor, "1 n d"] | None:
    try:
        embedding = read_tensor(path, _KIND)
    except DamagedError:
        return None  # it is computed and written again
    is_usable = embedding is not None and embedding.ndim == 3 and embedding.dtype == torch.float32
    return embedding if is_usable else None


def _write(path: Path, embedding: Float[Tensor, "1 n d"]) -> None:
    with suppress(OSError):  # without the cache the next run only takes longer
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")  # what a killed run left is overwritten
        try:
            write_tensor(temporary, embedding, _KIND, path.name)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise WeightsError(
            "The package transformers is not installed; it embeds the prompt.", "Install it: pip install transformers"
        ) from error
    return transformers
