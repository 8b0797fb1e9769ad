"""Functions with groups of options, as commands."""

# Annotations are evaluated here, see `options.command`.
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from propagate.app import options
from propagate.app.terminal.console import Terminal
from propagate.errors import InputError


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, options.option(help="A size.")]
    shade: Annotated[str, options.option(help="A shade.")] = "gray"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    count: Annotated[int, options.option(min=1, help="How many.")] = 1


def paint(terminal: Terminal, outer: Outer, name: Annotated[str, options.option(help="A name.")] = "x") -> int:
    """Paint it."""
    if name == "bad":
        raise InputError("No.", "Yes.")
    terminal.answer(f"{outer.inner.size} {outer.inner.shade} {outer.count} {name}")
    return 6 if name == "partly" else 0


def load(folder: Annotated[str, options.option(help="A folder.")]) -> list[str]:
    """Load it."""
    return [folder]


def show(terminal: Terminal, data: list[str], twice: Annotated[bool, options.option("--twice", help="Two.")] = False):
    """Show it."""
    terminal.answer(" ".join(data * (1 + twice)))


@pytest.fixture
def run():
    app = typer.Typer()
    app.command("paint")(options.command(paint))
    app.command("show")(options.command(show, data=load))
    return lambda *arguments: CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "NO_COLOR": "1"})


def test_groups_are_options_at_any_depth(run):
    result = run("paint", "--size", "3", "--count", "2", "--name", "y")
    assert (result.exit_code, result.stdout) == (0, "3 gray 2 y\n")
    assert run("paint").exit_code == 2  # --size has no default
    assert run("paint", "--size", "3", "--count", "0").exit_code == 2


def test_what_the_function_returns_is_the_exit_code_and_errors_are_reported(run):
    assert run("paint", "--size", "3", "--name", "partly").exit_code == 6
    failed = run("paint", "--size", "3", "--name", "bad")
    assert failed.exit_code == 3
    assert "error: No." in failed.stderr


def test_a_part_gives_its_options_and_the_help_text(run):
    assert run("show", "--folder", "a", "--twice").stdout == "a a\n"
    shown = run("show", "--help").stdout
    assert "Load it." in shown
    for option in ("--folder", "--twice", "--quiet", "--verbose"):
        assert option in shown
