"""Write docs/cli.md from `propagate COMMAND --help`: `make docs`. A test compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from propagate.app.program import app

PAGE = Path(__file__).with_name("cli.md")
HEAD = "# Command line\n\nThe help text of every command. `make docs` writes this page; do not edit it.\n"


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([HEAD, *map(_section, _paths(typer.main.get_command(app)))])


def _paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _paths(child, (*path, name))


def _section(path: tuple[str, ...]) -> str:
    told = CliRunner().invoke(
        app, [*path, "--help"], prog_name="propagate", env={"COLUMNS": "110", "NO_COLOR": "1"}, catch_exceptions=False
    )
    text = "\n".join(line.rstrip() for line in told.stdout.strip().splitlines())
    return f"## {' '.join(('propagate', *path))}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
