"""A command for each data set of `benchmarks.registry`, and the options that `evaluate` and `sweep` share."""

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
    """Jobs, threads, and earlier results."""

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
    """Add a command for each data set, which calls `act(terminal, benchmark, choices)` for the exit code."""
    for number, (name, load) in enumerate(DATA_SETS.items()):
        epilog = examples if number == 0 else None
        app.command(name, epilog=epilog)(options.command(act, benchmark=_with_options(load)))


def _with_options(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return `load` with typer's options in place of `Option`."""

    def with_options(**given: Any) -> Any:
        return load(**given)

    parameters = inspect.signature(load).parameters.values()
    annotated = [parameter.replace(annotation=_annotated(parameter)) for parameter in parameters]
    with_options.__signature__ = inspect.Signature(annotated)  # type: ignore[attr-defined]
    with_options.__doc__ = load.__doc__
    return with_options


def _annotated(parameter: inspect.Parameter) -> Any:
    kind, option = get_args(parameter.annotation)
    assert isinstance(option, Option)
    shows_default = parameter.default not in (inspect.Parameter.empty, None)
    more = {"min": option.min, "max": option.max, "show_default": shows_default}
    names = [option.name] if option.name else []
    return Annotated[kind, options.option(*names, help=option.help, metavar=option.metavar, panel="Data set", **more)]
