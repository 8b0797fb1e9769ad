"""`propagate models`: the weights of the large models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from propagate.app.options import Offline, Quiet, Verbose, Yes
from propagate.app.terminal.console import NORMAL, Terminal, reporting

if TYPE_CHECKING:
    from propagate.weights.registry import Model

models_app = typer.Typer(help="List, download and check the weights of the large models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a model, see `propagate models list`.", show_default=False)]


@models_app.command("list")
def list_models(quiet: Quiet = False, verbose: Verbose = 0) -> None:
    """The models with their licences, and which of them are here."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from rich.table import Table

        from propagate.weights.locating import MODELS, cached

        table = Table.grid(padding=(0, 3))
        for name, model in MODELS.items():
            place = "not here" if cached(name) is None else "here"
            table.add_row(name, place, _size(model), model.licence, model.summary)
        terminal.answer(table)


def _size(model: "Model") -> str:
    """Of the first source's files, configurations aside: "5.2 GB", or nothing where it is not known."""
    from rich.filesize import decimal

    sizes = [file.size for file in model.sources[0].files if not file.name.endswith((".json", ".txt"))]
    known = [size for size in sizes if size is not None]
    return decimal(sum(known)) if known and len(known) == len(sizes) else ""


@models_app.command()
def download(
    name: Name, yes: Yes = False, offline: Offline = False, quiet: Quiet = False, verbose: Verbose = 0
) -> None:
    """Download a model where it is not here yet, check it and print where it is."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from propagate.weights.locating import MODELS, Wanted, agree, fetched, is_offline, locate

        if name in MODELS:
            terminal.note(f"{name}: licence {MODELS[name].licence}.")
        missing = [] if is_offline() else agree([Wanted(name)])  # before anything is drawn
        with _bytes_bar(terminal, name) as on_progress:
            path = fetched(missing[0], on_progress) if missing else locate(name)
        terminal.answer(str(path))


@models_app.command()
def verify(
    name: Name,
    path: Annotated[Path | None, typer.Argument(help="File or folder to check.", show_default="the cached one")] = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Compare every file of a model with the known sizes and digests."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from propagate.errors import WeightsError
        from propagate.weights import locating as weights

        wrong = []
        for check in weights.verify(name, path):
            verdict = check.problem or ("ok" if check.is_known else "there; its digest is not known")
            terminal.result(f"{check.path}: {verdict}")
            if check.problem:
                wrong.append(f"{check.path} {check.problem}")
        if wrong:
            raise WeightsError("; ".join(wrong) + ".", "Delete it and download the model again.")


@models_app.command("path")
def print_path(name: Name, quiet: Quiet = False, verbose: Verbose = 0) -> None:
    """Print where a model is on this machine; nothing is downloaded."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from propagate.weights.locating import locate

        terminal.answer(str(locate(name, offline=True)))


@models_app.command("convert-adm")
def convert_adm(
    checkpoint: Annotated[Path, typer.Argument(metavar="IN.pt", help="A guided-diffusion U-Net.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="A folder that is not there yet.", show_default=False)
    ],
    head_channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of an attention head. \\[default: 64]", show_default=False)
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write a guided-diffusion checkpoint as safetensors in diffusers' layout, for `features.weights`."""
    with reporting(quiet=quiet, verbose=verbose) as terminal:
        from propagate.features.adm.checkpoint import convert_checkpoint

        convert_checkpoint(checkpoint, folder, head_channels)
        terminal.answer(str(folder))


@contextmanager
def _bytes_bar(terminal: Terminal, title: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Progress of a download from a plain URL; downloads from the hub show huggingface_hub's own."""
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
