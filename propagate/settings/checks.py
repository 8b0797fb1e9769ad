"""Checks of settings beyond their ranges, and a range as a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

_INT_LIMIT = 2**64  # of JSON and random generators
_MAX_PARTS = 32


def reject_bool_as_number(value: Any, annotation: Any) -> Any:
    """Return the value; reject true and false for a number, which pydantic converts to 1 and 0."""
    types = set(_types(annotation))
    if isinstance(value, bool) and types & {int, float} and bool not in types:
        raise PydanticCustomError("no_number", "Input should be a number, not true or false")
    if isinstance(value, list | tuple) and bool not in types:
        for item in value:
            reject_bool_as_number(item, annotation)
    return value


def reject_infinite(value: Any) -> Any:
    """Return the value; reject numbers that are not finite, in lists too."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "Input should be a finite number")
    if isinstance(value, list | tuple):
        for item in value:
            reject_infinite(item)
    return value


def reject_unstorable(value: Any, key: str) -> Any:
    """Return the value of a key; reject types that JSON cannot store."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str) or not name or "." in name:
                raise _refusal(f"{key}.{name}", "should have a name of text without a dot")
            reject_unstorable(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            reject_unstorable(item, f"{key}.{place}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refusal(key, "should be a finite number")
    elif isinstance(value, int) and abs(value) >= _INT_LIMIT:
        raise _refusal(key, "should be a number below 2^64")
    elif value is not None and not isinstance(value, str | int | float | Path):
        raise _refusal(key, f"should not be of the type {type(value).__name__}")
    return value


def reject_nameless_parts(values: Any) -> Any:
    """Return the settings of features; reject parts of a fusion without an extractor's name."""
    if isinstance(values, Mapping) and values.get("name") == "fusion" and "parts" in values:
        parts = values["parts"]
        if not isinstance(parts, list | tuple) or len(parts) > _MAX_PARTS:
            raise _refusal("features.parts", f"should be a list of up to {_MAX_PARTS} extractors")
        for place, part in enumerate(parts):
            if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
                raise _refusal(f"features.parts.{place}", "should be a mapping with the name of an extractor")
    return values


def _refusal(key: str, rule: str) -> PydanticCustomError:
    return PydanticCustomError("unstorable", "{key} {rule}", {"key": key, "rule": rule})


def allowed_values(model: type[BaseModel], key: Sequence[str]) -> str:
    """Return the range of a setting, `key` being its sections and name, as a sentence, or where to find it."""
    section: Any = model
    for part in key[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = None if field is None else field.annotation
    described = {} if section is None else section.model_json_schema().get("properties", {}).get(key[-1], {})
    for schema in described.get("anyOf", [described]):
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if low is not None and high is not None:
            return f"Allowed: {low:g} to {high:g}."
        if above is not None and high is not None:
            return f"Allowed: above {above:g}, to {high:g}."
        if low is not None and below is not None:
            return f"Allowed: {low:g} to below {below:g}."
    return "See `propagate config show`."


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)
