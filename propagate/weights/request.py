"""Requests for weights: those of the registry, or a repository with the same files."""

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
    """Weights that an extractor needs; the fields are arguments of `locate`."""

    model: str
    weights: str | Path | None = None
    revision: str | None = None
    access: str = ""  # what the user must do before the download, for the error

    @property
    def is_published(self) -> bool:
        """Whether they are the registry's own."""
        return self.weights is None and self.revision is None

    @property
    def name(self) -> str:
        """The name for messages."""
        return self.model if self.weights is None else str(self.weights)

    @property
    def local_path(self) -> Path | None:
        """The named file or folder, if it exists."""
        path = None if self.weights is None else Path(self.weights).expanduser()
        return path if path is not None and path.exists() else None

    @property
    def description(self) -> str:
        """Size, licence and source, for the question before a download."""
        sources = self.sources()
        sizes = [file.size for file in sources[0].files if file.is_weights]
        known = all(sizes) and self.is_published
        size = f"{sum(size or 0 for size in sizes) / 1e9:.2g} GB" if known else "of unknown size, maybe gigabytes"
        return f"{size}, licence {find_model(self.model).licence}, from {sources[0]}"

    def sources(self) -> tuple[Source, ...]:
        """Return the registry's sources, or the named repository, whose files have no known digest."""
        entry = find_model(self.model)
        files = tuple(map(WeightFile, entry.hub_files or [file.name for file in entry.sources[0].files]))
        if self.weights is not None:
            if not _is_hub_id(str(self.weights)):
                raise WeightsError(
                    f"{self.weights}: there is no such file or folder.", "Check the path (features.weights)."
                )
            return (HubSource(str(self.weights), self.revision or "main", files),)
        if self.revision is None:
            return entry.sources
        hub = next((source for source in entry.sources if isinstance(source, HubSource)), None)
        if hub is None:
            raise UsageError(f"revision {self.revision}: the published weights have no revisions.", "Leave it out.")
        return (HubSource(hub.repository, self.revision, files),)


def find_model(name: str) -> Model:
    """Return the registry's entry of a name, or raise a UsageError."""
    if name not in MODELS:
        raise UsageError(f"There is no model {name}.", f"Known: {', '.join(MODELS)}.")
    return MODELS[name]


def _is_hub_id(text: str) -> bool:
    """Accept "owner/name", but not the path of a missing file in an existing folder."""
    return bool(_HUB_ID.fullmatch(text)) and Path(text).suffix not in _FILE_SUFFIXES and not Path(text).parent.exists()
