"""`section.key=value` and lists of extractors: settings as plain mappings, before they are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from propagate.errors import UsageError
from propagate.files.documents import parse_yaml


def long_form(features: Any) -> Any:
    """Return a list of extractors as the mapping of their fusion; anything else unchanged."""
    return {"name": "fusion", "parts": features} if isinstance(features, list) else features


def assign(values: dict[str, Any], override: str) -> dict[str, Any]:
    """Assign an override, `section.key=YAML value`, in nested values; return {key: value}, or raise UsageError."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(
            f"--set {override} is not of the form section.key=value.", "For example: --set propagation.top_k=10."
        )
    value = parse_yaml(text, f"The value of --set {override}", UsageError)
    value = long_form(value) if key == "features" else value
    *sections, last = key.split(".")
    place: Any = values
    for section in sections:
        place = place[_number(place, section, override)] if isinstance(place, list) else place.setdefault(section, {})
        if not isinstance(place, dict | list):
            raise UsageError(f"--set {override}: {section} is a value, not a section.", "See `propagate config show`.")
    place[_number(place, last, override) if isinstance(place, list) else last] = value
    return {key: value}


def _number(values: list[Any], key: str, override: str) -> int:
    if not (key.isascii() and key.isdecimal()) or len(key) > 9 or int(key) >= len(values):
        raise UsageError(f"--set {override}: there is no {key} in a list of {len(values)}.", "They count from 0.")
    return int(key)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of nested mappings; parts of a fusion by number."""
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(place): item for place, item in enumerate(value)}  # features.parts.0.name
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
