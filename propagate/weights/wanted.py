"""What extractors want: weights of the registry, or a repository with the same files in their place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from propagate.errors import UsageError, WeightsError
from propagate.weights.registry import MODELS, HubSource, Model, Source, WeightFile

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True)
class Wanted:
    """Weights that an extractor needs.

    Attributes:
        model, weights, revision: see `locate`.
        access: what has to be done before they can be had, for the error; empty where nothing has to.
    """

    model: str
    weights: str | Path | None = None
    revision: str | None = None
    access: str = ""

    @property
    def is_published(self) -> bool:
        """Whether they are the registry's own."""
        return self.weights is None and self.revision is None

    @property
    def name(self) -> str:
        """For messages."""
        return self.model if self.weights is None else str(self.weights)


def described(wanted: Wanted) -> str:
    """Size and licence, for whoever has to agree."""
    first = sources(wanted)[0]
    sizes = [file.size for file in first.files if not file.name.endswith((".json", ".txt"))]
    known = sum(size or 0 for size in sizes)
    size = f"{known / 1e9:.2g} GB" if all(sizes) and wanted.is_published else "of unknown size, maybe gigabytes"
    return f"{size}, licence {registered(wanted.model).licence}, from {first}"


def registered(name: str) -> Model:
    """The registry's entry of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in MODELS:
        raise UsageError(f"There is no model {name}.", f"Known: {', '.join(MODELS)}.")
    return MODELS[name]


def sources(wanted: Wanted) -> tuple[Source, ...]:
    """The registry's sources, or the repository that was named, whose files have no digest here.

    Raises:
        UsageError: no such model, or a revision of weights that have none.
        WeightsError: a path was named, and it cannot be a repository.
    """
    entry, revision = registered(wanted.model), wanted.revision
    files = tuple(WeightFile(name) for name in entry.hub_files)
    if wanted.weights is not None:
        if not _is_hub_id(wanted.weights):
            raise WeightsError(
                f"{wanted.weights}: there is no such file or folder.", "Check the path (features.weights)."
            )
        return (HubSource(str(wanted.weights), revision or "main", files),)
    if revision is not None:
        hub = [source for source in entry.sources if isinstance(source, HubSource)]
        if not hub:
            raise UsageError(f"revision {revision}: the published weights have no revisions.", "Leave it out.")
        return (HubSource(hub[0].repository, revision, files),)
    return entry.sources


def _is_hub_id(weights: str | Path) -> bool:
    """ "owner/name", and not the path of a file that is missing from a folder that is there."""
    text = str(weights)
    return bool(_HUB_ID.fullmatch(text)) and Path(text).suffix not in _FILE_SUFFIXES and not Path(text).parent.exists()
