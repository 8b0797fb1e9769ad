"""Extractors of other packages, registered under the entry-point group `propagate.extractors`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from propagate.errors import UsageError
from propagate.features.networks.local_files import files_in, fingerprint

GROUP = "propagate.extractors"


def installed_extractors() -> dict[str, list[EntryPoint]]:
    """Return the entry points of each name; several where packages chose the same name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, []).append(entry)
    return found


def provider(entry: EntryPoint) -> str:
    """Return the package that registers an entry point, with its version."""
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def providers(name: str) -> str:
    """Return the packages that register an extractor of this name, with their versions; empty for one of ours."""
    return ", ".join(provider(entry) for entry in installed_extractors().get(name, []))


def package_digest(name: str) -> str:
    """Return a hash of all files of the packages that register an extractor of this name; empty for one of ours.

    These are the package's installed files and, for editable installs, the files beside the entry point's module.
    Nothing is imported. A file that cannot be read is a WeightsError.
    """
    digests = []
    for entry in installed_extractors().get(name, []):
        installed = entry.dist.files if entry.dist is not None and entry.dist.files is not None else ()
        places = {Path(str(file.locate())).resolve() for file in installed if file.suffix != ".pyc"}
        for place in _module_places(entry.module):
            places.update(path.resolve() for path in files_in(place))
        content = fingerprint(tuple(sorted(path for path in places if path.is_file())))
        digests.append(f"{provider(entry)}: {content}")
    return ", ".join(digests)


def _module_places(module: str) -> list[Path]:
    """Return the folders of the package that contains a module, or the module's file."""
    try:
        spec = find_spec(module.partition(".")[0])
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin is not None else []


def load_builder(entry: EntryPoint) -> Callable[..., Any]:
    """Import the class or function that builds the extractor of an entry point, or raise a UsageError."""
    subject = f"features.name = {entry.name}: {entry.value} of the package {provider(entry)}"
    try:
        builder = entry.load()
    except Exception as error:  # a foreign module can raise anything
        raise UsageError(f"{subject} cannot be imported ({type(error).__name__}: {error}).", _remedy(entry)) from error
    if not callable(builder):
        raise UsageError(f"{subject} is a {type(builder).__name__}, not a class or function.", _remedy(entry))
    return cast("Callable[..., Any]", builder)


def check_contract(extractor: object, entry: EntryPoint) -> None:
    """Raise a UsageError if a foreign extractor's attributes, or the arguments of its call, break the contract.

    `propagate.features.passes` checks its results.
    """
    subject = f"features.name = {entry.name}: the {type(extractor).__name__} of the package {provider(entry)}"
    for attribute in ("stride", "channels", "multiple"):
        value = getattr(extractor, attribute, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problem = f"has {attribute} = {value!r}" if hasattr(extractor, attribute) else f"has no {attribute}"
            raise UsageError(f"{subject} {problem}; it has to be a whole number above 0.", _remedy(entry))
    try:
        inspect.signature(cast("Callable[..., Any]", extractor)).bind(None, indices=None)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{subject} cannot be called with (images, indices=...), as every extractor is ({error}).", _remedy(entry)
        ) from error


def _remedy(entry: EntryPoint) -> str:
    return f"Repair or uninstall {provider(entry)}; docs/extending.md says what an extractor is."
