"""Damage to documents of values: JSON, YAML, lines and tables, with valid syntax or almost."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import yaml

# what stands in a case's folder beside the results: a path that leads there must not be followed
HOSTILE_NAMES = (
    "../canary.txt",
    "../../canary.txt",
    "../victim",
    "../victim/00000.png",
    "CASE/canary.txt",
    "CASE/victim",
    "",
    ".",
    "..",
    "a\0b",
    "\ud800",
    "x" * 300,
    "a/" * 400,
    "-o",
    "$(id)",
    "\x1b[31mred\x1b[0m",
    "line\nbreak",
    "\u202egnp",
    "CON",
    "C:\\x",
    " ",
    "*",
    "owner/repo",
)
_TEXTS = ("", "a", "nan", "1e400", "0x10", "٣", "²", "true", "null", "é" * 40, "{}", "{0}", "%s", "[red]", "'", '"')
_NUMBERS = (0, -0.0, -1, 1, 2, 3, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**31))
_FLOATS = (0.5, -0.5, 1e-45, 1e38, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf"))
_CONFIG_KEYS = {
    "_attn_implementation": "owner/repo",
    "attn_implementation": "owner/repo",
    "auto_map": {"AutoModel": "owner/repo--model.Model"},
    "trust_remote_code": True,
    "_name_or_path": "owner/repo",
    "torch_dtype": "float128",
    "dtype": "int8",
    "quantization_config": {"load_in_8bit": True},
    "_class_name": "Nothing",
    "rope_scaling": {"type": "x"},
    "id2label": [],
    "gradient_checkpointing": "yes",
}


def any_value(rng: Random, depth: int = 0) -> Any:
    """Return a value that is likely not expected."""
    kind = rng.randrange(10 if depth < 3 else 7)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind == 2:
        return rng.choice(_NUMBERS)
    if kind == 3:
        return rng.choice(_FLOATS)
    if kind == 4:
        return rng.choice(_TEXTS)
    if kind in (5, 6):
        return rng.choice(HOSTILE_NAMES)
    if kind == 7:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {str(any_value(rng, 3)): any_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return _nested(rng.choice((5, 59, 60, 61, 70, 300)))


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside, by a stack."""
    found, stack = [], [(value, path)]
    while stack and len(found) < 3000:
        inner, here = stack.pop()
        items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, item in items:
            found.append((*here, key))
            if len(here) < 20:
                stack.append((item, (*here, key)))
    return found


def mutate_value(document: Any, rng: Random) -> Any:
    """Return a copy of a document of dicts, lists and scalars with one damage."""
    document = copy.deepcopy(document)
    places = _places(document)
    if not places or rng.random() < 0.03:
        return any_value(rng)
    # a value at the top is as likely as one deep inside
    depth = rng.choice(sorted({len(path) for path in places}))
    path = rng.choice([path for path in places if len(path) == depth])
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    last, old = path[-1], parent[path[-1]]
    damage = rng.randrange(12)
    if damage in (0, 1):
        parent[last] = any_value(rng)
    elif damage in (2, 9, 10, 11):
        parent[last] = near(old, rng)
    elif damage == 3:
        del parent[last]
    elif damage == 4 and isinstance(parent, dict):
        parent[rng.choice((*HOSTILE_NAMES, *_TEXTS))] = parent.pop(last)
    elif damage == 5 and isinstance(parent, dict):
        key = rng.choice((*HOSTILE_NAMES, *_CONFIG_KEYS))
        parent[key] = _CONFIG_KEYS.get(key, any_value(rng))
    elif damage == 6 and isinstance(old, list | dict):
        parent[last] = list(old) * rng.choice((0, 2, 100)) if isinstance(old, list) else list(old.values())
    elif damage == 7:
        parent[last] = [old] if rng.random() < 0.5 else {"a": old}
    else:
        # a value from elsewhere in the document
        value: Any = document
        for key in rng.choice(places):
            value = value[key]
        parent[last] = copy.deepcopy(value)
    return document


def near(old: Any, rng: Random) -> Any:
    """Return a value of the same type, which may fit."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice((old + 1, old - 1, -old, old * 2, old * 1000, 0, rng.choice(_NUMBERS), float(old)))
    if isinstance(old, float):
        return rng.choice((old + 1, -old, old * 1e6, 0.0, rng.choice(_FLOATS)))
    if isinstance(old, str):
        return rng.choice((old + " ", old.upper(), old[:-1], old + "/" + old, "../" + old, *HOSTILE_NAMES))
    if isinstance(old, list) and old:
        return rng.choice((old[:-1], [*old, old[0]], old[::-1], []))
    return {} if isinstance(old, dict) else None


def mutate_json(content: bytes, rng: Random) -> bytes:
    """Return a JSON file with one to three damages to its values or its syntax."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content + b"]"
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = mutate_value(document, rng)
    try:
        text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    except (ValueError, RecursionError, TypeError):
        text = "[" * 100_000
    syntax = rng.randrange(16)
    if syntax == 0 and text.startswith('{"'):
        key = text[1 : text.index('"', 2) + 1]
        text = f"{{{key}: 1, {text[1:]}"  # a key twice
    elif syntax == 1:
        text = text[:-1]
    elif syntax == 2:
        text = "\ufeff" + text
    elif syntax == 3:
        text = text.replace("1", "1" * 5000, 1)
    elif syntax == 4:
        return text.encode("utf-16", "surrogatepass")
    elif syntax == 5:
        text = "[" * rng.choice((100, 5000, 200_000))
    elif syntax == 6:
        text = text.replace(":", ": NaN,", 1)
    return text.encode("utf-8", "surrogatepass")


_YAML_TRAPS = (
    "a: &a [1, 2]\nb: *a\n",
    "a: &a [*a]\n",
    "x: &x {<<: *x}\n",
    "? [1, 2]\n: 3\n",
    "? {a: b}\n: 3\n",
    "1: 2\n",
    "null: 2\n",
    "2024-13-45: x\n",
    "a: 2024-13-45\n",
    "a: 2024-01-01\n",
    "a: !!python/object/apply:os.system [id]\n",
    "a: !!binary x\n",
    "a: !!int abc\n",
    "a: !!float abc\n",
    "a: !!bool 3\n",
    "a: !!null x\n",
    "a: !!str [1]\n",
    "a: !!timestamp x\n",
    "a: !!set {b, c}\n",
    "a: !!omap [1]\n",
    "a: !!map x\n",
    "a: !!seq x\n",
    "a: !!merge x\n",
    "a: !!value x\n",
    "a: !<tag:yaml.org,2002:int> 1_\n",
    "a: 0b\n",
    "a: 0x\n",
    "a: 1:60:60:60\n",
    "a: .\n",
    "a: +.inf\n",
    'a: "\\U7fffffff"\n',
    'a: "\\ud800"\n',
    "%YAML 9.9\n---\na: 1\n",
    "%TAG ! !\n---\na: 1\n",
    "---\na: 1\n---\nb: 2\n",
    "<<: 3\n",
    "<<: [{a: 1}, 3]\n",
    "=: 3\n",
    "\t: 3\n",
    "a: |9\n x\n",
    "- " * 500 + "a\n",
    "[" * 2000,
    "{" * 2000,
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)),
)


def mutate_yaml(content: bytes, rng: Random) -> bytes:
    """Return a YAML file with one to three damages."""
    if rng.random() < 0.25:
        trap = rng.choice(_YAML_TRAPS)
        text = content.decode("utf-8", "replace")
        return rng.choice((trap, text + "\n" + trap, trap + text, _indented(text, trap))).encode("utf-8", "replace")
    try:
        document = yaml.safe_load(content)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            document = mutate_value(document, rng)
        text = yaml.safe_dump(document, allow_unicode=rng.random() < 0.5)
    except Exception:  # of an earlier damage; PyYAML raises almost anything
        return content + b"\n: : ["
    if rng.random() < 0.1:
        return (text + text).encode("utf-8", "replace")  # every key twice
    return text.encode("utf-8", "surrogatepass")


def _indented(text: str, trap: str) -> str:
    first = text.partition("\n")[0]
    return f"{first}\n" + "".join(f"  {line}\n" for line in trap.splitlines())


def yaml_value(rng: Random) -> str:
    """Return a text as it may stand after `--set KEY=`."""
    if rng.random() < 0.3:
        return rng.choice(_YAML_TRAPS).replace("a: ", "", 1).strip()
    value = any_value(rng)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "[" * 3000
    return text.replace("\0", "").replace("Infinity", ".inf").replace("NaN", ".nan")


def mutate_table(content: bytes, rng: Random) -> bytes:
    """Return a table or a list of lines with one to three damages to cells or lines."""
    rows = [line.split(b",") for line in content.split(b"\n")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.randrange(len(rows))
        column = rng.randrange(len(rows[row]))
        damage = rng.randrange(8)
        if damage in (0, 1):
            rows[row][column] = str(any_value(rng, 3)).encode("utf-8", "surrogatepass")
        elif damage == 2:
            rows.insert(row, list(rows[rng.randrange(len(rows))]))
        elif damage == 3:
            rows = rows[:row] + rows[row + 1 :] or [[b""]]
        elif damage == 4:
            rows[row] = rows[row][: column + 1] * 2
        elif damage == 5:
            rows[row][column] = rng.choice((b'"', b"\x00", b"\xff\xfe", b"\r", b"x" * 200_000, b"'", b"\xef\xbb\xbf"))
        elif damage == 6:
            rows[row][column] = b"9" * rng.choice((10, 400, 5000))
        else:
            rows[row].insert(column, b"")
    separator = rng.choice((b",", b",", b",", b",", b";", b"\t", b" , ", b"|"))
    end = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n"))
    return end.join(separator.join(row) for row in rows)
