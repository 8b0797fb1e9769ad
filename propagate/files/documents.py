"""Read JSON, YAML and other text files of other people, with an error of ours for whatever is wrong with them.

Python's and PyYAML's readers raise a dozen kinds of exceptions, use the last of two equal keys, and let a few lines
expand into millions of values. All JSON and YAML that the package reads is parsed here.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from propagate.errors import InputError, PropagateError

MAX_BYTES = 512 * 2**20
MAX_DEPTH = 60
MAX_YAML_VALUES = 100_000  # counted with every use of an alias
_MAX_INTEGER = 2**64

ErrorType = type[PropagateError]


def check_regular_file(path: Path, what: str = "file", error: ErrorType = InputError) -> None:
    """Raise `error` if a path is missing, a folder, a pipe or a device. `what` names its role in the message."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise error(f"The {what} {path} does not exist.", f"Check the path; looked for {path.absolute()}.") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the path
        cause = getattr(problem, "strerror", None) or str(problem)
        raise error(f"The {what} {path} cannot be read: {cause}.", "Check the path.") from None
    if stat.S_ISDIR(mode):
        raise error(f"The {what} {path} is a folder.", "Name a file.")
    if not stat.S_ISREG(mode):
        cause = f"The {what} {path} is a pipe or a device, which can be read only once."
        raise error(cause, "Save it as a file first.")


def read_text(path: Path, what: str = "file", error: ErrorType = InputError) -> str:
    """Read a UTF-8 file up to 512 MiB, without its byte order mark; arguments and errors as `check_regular_file`."""
    check_regular_file(path, what, error)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise error(f"The {what} {path} cannot be read: {problem.strerror}.", "Check its permissions.") from problem
    if len(content) > MAX_BYTES:
        raise error(f"The {what} {path} is larger than {MAX_BYTES >> 20} MiB.", "Check that it is the right file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"The {what} {path} is not UTF-8 text.", "Save it as UTF-8.") from problem


def read_json(path: Path, what: str = "file", error: ErrorType = InputError) -> Any:
    """Read a JSON file; arguments and errors as `read_text` and `parse_json`."""
    return parse_json(read_text(path, what, error), f"The {what} {path}", error)


def parse_json(text: str, source: str, error: ErrorType = InputError, *, any_number: bool = False) -> Any:
    """Parse a JSON text.

    Stricter than `json`: no NaN or infinity, no integer beyond 64 bits, no duplicate keys, no nesting deeper than
    `MAX_DEPTH`.

    Args:
        text: the document.
        source: where it comes from, as the beginning of a sentence ("The preset x.yaml").
        error: class of the error to raise.
        any_number: accept NaN, infinity and larger numbers: for files of other programs whose values are checked later.

    Raises:
        PropagateError: of class `error`.
    """

    def real(digits: str) -> float:
        if not any_number and digits in ("NaN", "Infinity", "-Infinity"):
            raise ValueError(f"{digits} is not JSON")
        if not any_number and not math.isfinite(float(digits)):
            raise ValueError(f"{digits[:20]} is too large")
        return float(digits)

    def integer(digits: str) -> int | float:
        if len(digits) <= 20 and abs(int(digits)) < _MAX_INTEGER:
            return int(digits)
        if not any_number:
            raise ValueError(f"{digits[:20]}... is too large")
        return float(digits)

    with _refused(source, error):
        hook = _without_duplicates
        value = json.loads(text, parse_constant=real, parse_float=real, parse_int=integer, object_pairs_hook=hook)
        _check_size(value, math.inf)
    return value


def parse_yaml(text: str, source: str, error: ErrorType = InputError) -> Any:
    """Parse a YAML text of mappings with text keys, lists, text, numbers, booleans and null; see `parse_json`.

    Dates, sets, binary data and other tags are errors, as are duplicate keys and aliases that expand into more than
    `MAX_YAML_VALUES` values. NaN and infinity are accepted: `.inf` is YAML.

    Raises:
        PropagateError: of class `error`.
    """
    with _refused(source, error):
        value = yaml.load(text, Loader=_Loader)
        _check_size(value, MAX_YAML_VALUES)
    return value


@contextmanager
def _refused(source: str, error: ErrorType) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as problem:
        raise error(f"{source} is not JSON: {problem}.", "Check it with a JSON validator.") from problem
    except yaml.YAMLError as problem:
        raise error(f"{source} is not valid YAML: {_on_one_line(problem)}.", "Correct it there.") from problem
    except RecursionError as problem:
        raise error(f"{source} is nested too deeply.", "Check that it is the right file.") from problem
    except (ValueError, OverflowError, TypeError, AttributeError, LookupError) as problem:
        # PyYAML's constructors raise these for an impossible date, a code point beyond Unicode, a broken tag
        raise error(f"{source} cannot be used: {_on_one_line(problem)}.", "Correct it there.") from problem


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with errors for duplicate keys and for types that a setting cannot have."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # before `<<` merges keys, which the mapping may override
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError("a key is a list or a mapping")
                if key.value in seen:
                    raise ValueError(f"the key {key.value!r} appears twice, in line {key.start_mark.line + 1} again")
                seen.add(key.value)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        if wrong := [key for key in mapping if not isinstance(key, str)]:
            raise ValueError(f"the key {wrong[0]!r} is not text: put it in quotes")
        return mapping

    def _refuse(self, node: yaml.Node) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:").lstrip("!")
        raise ValueError(f"line {node.start_mark.line + 1} is a {kind}: put quotes around it if it is text")


def _plain_number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """Return a number. Refuse 010 and 1:30, which are 8 and 90 in YAML 1.1 only."""
    digits, is_whole = node.value.lstrip("+-"), node.tag.endswith(":int")
    if ":" in digits or (is_whole and re.match("0[0-9_]", digits)):
        raise ValueError(
            f"{digits[:20]} in line {node.start_mark.line + 1} is not a plain number: write it without zeros in front "
            "and without colons, or put quotes around it"
        )
    value: int | float = loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)
    return value


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _plain_number)
for _tag in ("timestamp", "binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader._refuse)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the key {name!r} appears twice in one object")
        values[name] = value
    return values


def _check_size(document: Any, most: float) -> None:
    """Check the number of values, with every use of an alias, and the depth, which ends cycles, too."""
    stack: list[tuple[Any, int]] = [(document, 0)]
    count = 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > most:
            raise ValueError(f"it has more than {most} values")
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(value, str):
            value.encode()  # a lone surrogate is not text; UnicodeEncodeError is a ValueError
        elif isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            raise ValueError("an integer is too large")
        elif isinstance(value, dict):
            stack.extend((item, depth + 1) for item in (*value.keys(), *value.values()))
        elif isinstance(value, list | tuple):
            stack.extend((item, depth + 1) for item in value)


def _on_one_line(problem: Exception) -> str:
    if isinstance(problem, UnicodeEncodeError):
        return "it holds a character that is not text"
    return " ".join(str(problem).split()).rstrip(".") or type(problem).__name__
