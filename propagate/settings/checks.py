"""What every setting is checked for beside its own range, and the range as a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

_LARGEST_WHOLE = 2**64  # what JSON and generators of random numbers take
_MOST_PARTS = 32
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def refuse_yes_as_number(value: Any, annotation: Any) -> Any:
    """Return the value; true and false are refused where a number is wanted: pydantic takes them for 1 and 0.

    Args:
        value: as it was given.
        annotation: the type that is wanted.

    Raises:
        PydanticCustomError: it is such a value.
    """
    wanted = set(_types(annotation))
    if isinstance(value, bool) and wanted & {int, float} and bool not in wanted:
        raise PydanticCustomError("no_number", "Input should be a number, not true or false")
    if isinstance(value, list | tuple) and bool not in wanted:
        for item in value:
            refuse_yes_as_number(item, annotation)
    return value


def refuse_infinite(value: Any) -> Any:
    """Return the value; numbers that are not finite are refused, in lists too.

    Raises:
        PydanticCustomError: there is one.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "Input should be a finite number")
    if isinstance(value, list | tuple):
        for item in value:
            refuse_infinite(item)
    return value


def refuse_unstorable(value: Any, key: str) -> Any:
    """Return the value; what cannot be stored in a record of settings is refused.

    Args:
        value: as it was given.
        key: its name, for the message.

    Raises:
        PydanticCustomError: not made of text, booleans, null, finite numbers, lists and mappings with text as keys.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str) or not name or "." in name:
                raise _refusal(f"{key}.{name}", "should have a name of text without a dot")
            refuse_unstorable(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            refuse_unstorable(item, f"{key}.{place}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refusal(key, "should be a finite number")
    elif isinstance(value, int) and abs(value) >= _LARGEST_WHOLE:
        raise _refusal(key, "should be a number below 2^64")
    elif value is not None and not isinstance(value, str | int | float | Path):
        raise _refusal(key, f"should not be of the type {type(value).__name__}")
    return value


def refuse_nameless_parts(values: Any) -> Any:
    """Return the settings of features; parts of a fusion without an extractor's name are refused.

    Raises:
        PydanticCustomError: no list of mappings, or one without a name.
    """
    if isinstance(values, Mapping) and values.get("name") == "fusion" and "parts" in values:
        parts = values["parts"]
        if not isinstance(parts, list | tuple) or len(parts) > _MOST_PARTS:
            raise _refusal("features.parts", f"should be a list of extractors, of {_MOST_PARTS} at most")
        for place, part in enumerate(parts):
            if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
                raise _refusal(f"features.parts.{place}", "should be a mapping with the name of an extractor")
    return values


def _refusal(key: str, what: str) -> PydanticCustomError:
    return PydanticCustomError("unstorable", "{key} {what}", {"key": key, "what": what})


def allowed_values(model: type[BaseModel], key: Sequence[str]) -> str:
    """Return the range of a setting as a sentence, or where to look for what fits.

    Args:
        model: all settings.
        key: sections and name of the setting.
    """
    section: Any = model
    for part in key[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = None if field is None else field.annotation
    told = {} if section is None else section.model_json_schema().get("properties", {}).get(key[-1], {})
    for schema in told.get("anyOf", [told]):
        low, above, high, below = (schema.get(bound) for bound in _BOUNDS)
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
