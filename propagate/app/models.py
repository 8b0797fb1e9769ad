"""`propagate models`: the weights of the large models."""

# Annotations are evaluated here, see `options.command`.
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from propagate.app.options import Offline, Yes, command
from propagate.app.terminal.console import NORMAL, Terminal
from propagate.errors import WeightsError
from propagate.weights.consent import is_offline
from propagate.weights.registry import MODELS, Model
from propagate.weights.request import Wanted

Name = Annotated[str, typer.Argument(help="Model, see `propagate models list`.", show_default=False)]


def list_models(terminal: Terminal) -> None:
    """List the models with their licences, and whether they are downloaded."""
    from rich.table import Table

    from propagate.weights.locating import cached

    table = Table.grid(padding=(0, 3))
    for name, model in MODELS.items():
        place = "not here" if cached(name) is None else "here"
        table.add_row(name, place, _size(model), model.licence, model.summary)
    terminal.answer(table)


def _size(model: Model) -> str:
    """Return the size of the first source's weights ("5.2 GB"), or an empty string if unknown."""
    from rich.filesize import decimal

    sizes = [file.size for file in model.sources[0].files if file.is_weights]
    known = [size for size in sizes if size is not None]
    return decimal(sum(known)) if known and len(known) == len(sizes) else ""


def download(terminal: Terminal, name: Name, yes: Yes = False, offline: Offline = False) -> None:
    """Download a model if it is missing, check it and print its path."""
    from propagate.weights.locating import agree, fetch, locate

    if name in MODELS:
        terminal.note(f"{name}: licence {MODELS[name].licence}.")
    missing = [] if is_offline() else agree([Wanted(name)])  # ask before drawing the bar
    with _bytes_bar(terminal, name) as on_progress:
        path = fetch(missing[0], on_progress) if missing else locate(name)
    terminal.answer(str(path))


def verify(
    terminal: Terminal,
    name: Name,
    path: Annotated[Path | None, typer.Argument(help="File or folder to check.", show_default="the cached one")] = None,
) -> None:
    """Check the files of a model against known sizes and digests."""
    from propagate.weights import locating as weights

    wrong = []
    for check in weights.verify(name, path):
        verdict = check.problem or ("ok" if check.is_known else "there; its digest is not known")
        terminal.result(f"{check.path}: {verdict}")
        if check.problem:
            wrong.append(f"{check.path} {check.problem}")
    if wrong:
        raise WeightsError("; ".join(wrong) + ".", "Delete it and download the model again.")


def print_path(terminal: Terminal, name: Name) -> None:
    """Print the path of a downloaded model."""
    from propagate.weights.locating import locate

    terminal.answer(str(locate(name, offline=True)))


def convert_adm(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="IN.pt", help="Guided-diffusion U-Net.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="New folder.", show_default=False)],
    head_channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of an attention head. \\[default: 64]", show_default=False)
    ] = None,
) -> None:
    """Convert a guided-diffusion checkpoint to diffusers' safetensors, for `features.weights`."""
    from propagate.features.adm.checkpoint import convert_checkpoint

    convert_checkpoint(checkpoint, folder, head_channels)
    terminal.answer(str(folder))


@contextmanager
def _bytes_bar(terminal: Terminal, title: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show the progress of a download from a plain URL; hub downloads have huggingface_hub's own bar."""
    if terminal.verbosity < NORMAL:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    if terminal.verbosity < NORMAL or not terminal.err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=terminal.err, transient=True) as live:
        task = live.add_task(title, total=None, visible=False)
        yield lambda done, total: live.update(task, completed=done, total=total, visible=True)


app = typer.Typer(help="List, download and check the weights of the large models.", no_args_is_help=True)
app.command("list")(command(list_models))
app.command("download")(command(download))
app.command("verify")(command(verify))
app.command("path")(command(print_path))
app.command("convert-adm")(command(convert_adm))
