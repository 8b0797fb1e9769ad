"""`propagate config list` and `propagate config show`."""

# Annotations are evaluated here, see `options.command`.
import json
from typing import TYPE_CHECKING, Annotated

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
    """Show every setting with its value and its origin."""
    resolved = options.Changes(assignments).resolve(preset)
    from propagate.provenance import all_settings

    table = _table()
    for key, setting in all_settings(resolved).items():
        # as after `--set key=`
        value = setting.value if isinstance(setting.value, str) else json.dumps(setting.value, default=str)
        table.add_row(key, value, setting.origin, style="dim" if setting.origin == "default" else "")
    terminal.answer(table)


def _table() -> "Table":
    from rich.table import Table

    return Table.grid(padding=(0, 3))


app = typer.Typer(help="List presets and show their settings.", no_args_is_help=True)
app.command("list")(options.command(list_presets))
app.command("show")(options.command(show))
