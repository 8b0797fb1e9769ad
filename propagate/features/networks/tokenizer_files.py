"""CLIP's tokenizer from a folder: known files with known keys, so that no file can name code or other places."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from propagate.errors import WeightsError
from propagate.features.networks.configs import NetworkConfig, building, checked_config
from propagate.features.networks.loading import read_config
from propagate.files.documents import check_regular_file

_REMEDY = "Fetch the whole pipeline."


class _Token(NetworkConfig):
    content: Annotated[str, Field(max_length=100)]
    lstrip: bool = False
    normalized: bool = False
    rstrip: bool = False
    single_word: bool = False
    special: bool = False


_Text = Annotated[str, Field(max_length=100)] | _Token


class _Tokens(NetworkConfig):
    """The keys of `special_tokens_map.json`."""

    remedy: ClassVar[str] = _REMEDY

    bos_token: _Text = "<|startoftext|>"
    eos_token: _Text = "<|endoftext|>"
    pad_token: _Text = "<|endoftext|>"
    unk_token: _Text = "<|endoftext|>"


class _TokenizerConfig(_Tokens):
    """The keys of `tokenizer_config.json`."""

    add_prefix_space: bool = False
    do_lower_case: bool = True
    model_max_length: Annotated[int, Field(ge=2)] = 77
    added_tokens_decoder: Annotated[dict[str, _Token], Field(max_length=1000)] = Field(default_factory=dict)


_CHECKED: dict[str, type[_Tokens]] = {"tokenizer_config.json": _TokenizerConfig, "special_tokens_map.json": _Tokens}
_PLAIN = ("vocab.json", "merges.txt", "tokenizer.json")


def load_tokenizer(folder: Path, tokenizer_class: Any) -> Any:
    """Load transformers' `CLIPTokenizer` from `vocab.json` and `merges.txt`, or `tokenizer.json`, of a folder."""
    with tempfile.TemporaryDirectory(prefix="propagate-") as place:
        for name in _PLAIN:
            if (source := folder / name).exists():
                check_regular_file(source, "tokenizer file", WeightsError)
                if source.suffix == ".json":
                    read_config(source)
                shutil.copyfile(source, Path(place) / name)
        for name, kind in _CHECKED.items():
            if (source := folder / name).exists():
                values = checked_config(kind, read_config(source), source)
                if kind is _TokenizerConfig:  # transformers wants tokens spelled differently in this file
                    for value in values.values():
                        if isinstance(value, dict) and "content" in value:
                            value["__type"] = "AddedToken"
                (Path(place) / name).write_text(json.dumps(values), encoding="utf-8")
        if not any((Path(place) / name).exists() for name in ("vocab.json", "tokenizer.json")):
            raise WeightsError(f"{folder} holds no CLIP tokenizer: it has no vocab.json.", _REMEDY)
        with building(folder, "CLIP tokenizer", _REMEDY):
            return tokenizer_class.from_pretrained(place, local_files_only=True, trust_remote_code=False)
