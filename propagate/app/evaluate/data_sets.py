"""One command per data set of `benchmarks.registry`, and the options that `evaluate` and `sweep` share."""

# Annotations are evaluated here, see `options.command`.
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import typer

from propagate.app import options
from propagate.benchmarks.options import Option
from propagate.benchmarks.registry import DATA_SETS


@dataclass(frozen=True)
class Running:
    """How clips are run."""

    jobs: Annotated[
        int,
        options.option(min=1, metavar="N", help="Run this many clips at a time.", panel="Running", show_default=True),
    ] = 1
    threads: Annotated[
        int | None,
        options.option(min=1, metavar="N", help="Threads per process. \\[default: its share]", panel="Running"),
    ] = None
    resume: Annotated[bool, options.option("--resume", help="Continue: keep finished clips.", panel="Running")] = False
    overwrite: Annotated[
        bool, options.option("--overwrite", help="Replace an earlier evaluation.", panel=options.OUTPUT)
    ] = False


def add_data_sets(app: typer.Typer, act: Callable[..., int], examples: str) -> None:
    """Add a command for each data set.

    Args:
        app: gets the commands.
        act: `act(terminal, choices, benchmark)` does the work and returns the exit code.
        examples: shown under the first command.
    """
    for number, (name, load) in enumerate(DATA_SETS.items()):
        epilog = examples if number == 0 else None
        app.command(name, epilog=epilog)(options.command(act, benchmark=_with_options(load)))


def _with_options(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return `load` with typer's options in place of `Option`."""

    def with_options(**given: Any) -> Any:
        return load(**given)

    parameters = [
        parameter.replace(annotation=_annotated(parameter)) for parameter in inspect.signature(load).parameters.values()
    ]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__doc__ = load.__doc__
    return with_options


def _annotated(parameter: inspect.Parameter) -> Any:
    kind, option = get_args(parameter.annotation)
    assert isinstance(option, Option)
    required = parameter.default is inspect.Parameter.empty
    names = [option.name] if option.name else []
    typed = options.option(
        *names,
        help=option.help,
        metavar=option.metavar,
        min=option.min,
        max=option.max,
        panel="Data set",
        show_default=not required and parameter.default is not None,
    )
    return Annotated[kind, typed]
