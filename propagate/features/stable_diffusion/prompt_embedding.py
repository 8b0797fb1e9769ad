"""The prompt's embedding: computed once by the text encoder, then kept on the disk for every later run.

It depends on the prompt, the text encoder's weights and the tokenizer alone, so those name the file it is kept in. A
second file is named by the U-Net it belongs to: with that one a pipeline works without a text encoder (0.7 GB of
Stable Diffusion 2.1).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from propagate.errors import UsageError, WeightsError
from propagate.features.networks.configs import MODEL_REMEDY, building
from propagate.features.networks.digests import fingerprint
from propagate.features.networks.loading import Component, check_fits
from propagate.features.networks.tokenizer_files import load_tokenizer
from propagate.features.networks.transformer_configs import ClipTextConfig
from propagate.files.checked_tensors import DamagedError, read_tensor, write_tensor
from propagate.weights.locating import cache_folder

_KIND = "propagate prompt 1"
# in text encoder files, but not of the last hidden state's network
_UNUSED = ("text_projection.weight", "logit_scale", "embeddings.position_ids")


@dataclass(frozen=True)
class TextEncoder:
    """CLIP's text model and what belongs to it, not loaded.

    Attributes:
        network: config and weights.
        tokenizer: its folder; None: there is none, and only the empty prompt can be embedded.
        padding: token id behind the end of the text where there is no tokenizer to say it; None: the end token again.
    """

    network: Component
    tokenizer: Path | None
    padding: int | None = None

    def identity(self) -> str:
        """A hash of the weights, the config and the tokenizer."""
        digest = hashlib.sha256(json.dumps([dict(self.network.config), self.padding], sort_keys=True).encode())
        for name, tensor in sorted(self.network.read().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for path in sorted(self.tokenizer.iterdir()) if self.tokenizer is not None and self.tokenizer.is_dir() else ():
            if path.is_file():  # no folder, pipe or device
                digest.update(os.fsencode(path.name) + path.read_bytes())
        return digest.hexdigest()

    def token_ids(self, prompt: str) -> Int[Tensor, "1 n"]:
        """The prompt's tokens, padded to the text model's length.

        What is padded with differs between models (0 in Stable Diffusion 2, the end token in 1) and follows from the
        tokenizer's files.

        Raises:
            UsageError: the prompt is too long.
            WeightsError: there is no tokenizer, and the prompt is not empty.
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
        _, _, tokenizer_class = _transformers()
        tokenizer = load_tokenizer(self.tokenizer, tokenizer_class)
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
        """The last hidden state, after the final norm, for the prompt: float32, without an attention mask.

        Raises:
            WeightsError: transformers is not installed, or the files are damaged or of another architecture.
        """
        config_class, model_class, _ = _transformers()
        with building(self.network.source, "CLIP text model", MODEL_REMEDY):
            config = config_class(**self.network.config)
            with torch.device("meta"):
                empty = model_class(config)
        # transformers 5.6 dropped the prefix that the files have
        prefix = "text_model." if any(name.startswith("text_model.") for name in empty.state_dict()) else ""
        tensors = {name.removeprefix("text_model."): value.float() for name, value in self.network.read().items()}
        tensors = {prefix + name: value for name, value in tensors.items() if name not in _UNUSED}
        check_fits(empty, tensors, str(self.network.files[0]))
        with building(self.network.source, "CLIP text model", MODEL_REMEDY):
            model = model_class(config).eval()  # of no more memory than the files take, as was checked
        model.load_state_dict(tensors, assign=True)
        embedding: Tensor = model(self.token_ids(prompt)).last_hidden_state
        return embedding


def prompt_embedding(prompt: str, encoder: TextEncoder | None, unet_files: tuple[Path, ...]) -> Float[Tensor, "1 n d"]:
    """The prompt's embedding (1, tokens, width) float32, from the cache where it is there.

    Args:
        prompt: any text.
        encoder: the text encoder; None: an earlier run with the same U-Net has to have left the embedding.
        unet_files: weight files of the U-Net it is for.

    Raises:
        WeightsError: there is no text encoder and the embedding is not in the cache; or see `TextEncoder`.
    """
    own = _entry(prompt, fingerprint(unet_files))
    kept = _read(own)
    if encoder is None:
        if kept is None:
            raise WeightsError(
                f"The pipeline has no text encoder, and no earlier run left the embedding of the prompt {prompt!r}.",
                "Fetch its text_encoder and tokenizer once.",
            )
        return kept
    entry = _entry(prompt, encoder.identity())
    embedding = _read(entry)
    if embedding is None:
        embedding = encoder.embed(prompt)
        _write(entry, embedding)
    if kept is None or not torch.equal(kept, embedding):
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
    # a cache that cannot be written costs the next run its time and this one nothing
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f".{path.name}")  # what a killed run left is written over
        try:
            write_tensor(whole, embedding, _KIND, path.name)
            whole.replace(path)
        finally:
            whole.unlink(missing_ok=True)


def _transformers() -> tuple[Any, Any, Any]:
    try:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise WeightsError(
            "The package transformers is not installed; it embeds the prompt.", "Install it: pip install transformers"
        ) from error
    return CLIPTextConfig, CLIPTextModel, CLIPTokenizer
