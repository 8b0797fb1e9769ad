"""`propagate config list` and `propagate config show`."""

# Annotations are evaluated here, see `options.command`.
from typing import TYPE_CHECKING, Annotated, Any

import typer

from propagate.app import options
from propagate.app.terminal.console import Terminal

if TYPE_CHECKING:
    from rich.table import Table


def list_presets(terminal: Terminal) -> None:
    """List the shipped presets."""
    from propagate.settings import DEFAULT_PRESET, preset_names, preset_summary

    table = _table()
    for name in preset_names():
        table.add_row(name, preset_summary(name) + (" (default)" if name == DEFAULT_PRESET else ""))
    terminal.answer(table)


def show(
    terminal: Terminal,
    preset: Annotated[
        str | None, typer.Argument(metavar="[NAME_OR_FILE]", help="Preset or YAML file. \\[default: compact]")
    ] = None,
    assignments: options.Assignments = None,
) -> None:
    """Show every setting with its value and where it comes from."""
    resolved = options.resolve_settings(preset, assignments)
    from propagate.provenance import all_settings

    table = _table()
    for key, setting in all_settings(resolved).items():
        style = "dim" if setting.origin == "default" else ""
        table.add_row(key, _as_yaml(setting.value), setting.origin, style=style)
    terminal.answer(table)


def _table() -> "Table":
    from rich.table import Table

    return Table.grid(padding=(0, 3))


def _as_yaml(value: Any) -> str:
    """The value as it would be written after `--set key=`."""
    import json

    return value if isinstance(value, str) else json.dumps(value, default=str)


app = typer.Typer(help="List presets, and show what they set.", no_args_is_help=True)
app.command("list")(options.command(list_presets))
app.command("show")(options.command(show))
