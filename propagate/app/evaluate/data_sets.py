"""The options of `propagate evaluate` and `propagate sweep`, and a command for each data set."""

# Annotations are evaluated here, see `options.command`.
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from propagate.app import options
from propagate.app.options import OUTPUT, RUNNING, command, count, flag, option
from propagate.benchmarks.options import Option
from propagate.benchmarks.registry import DATA_SETS


@dataclass(frozen=True)
class Running:
    """Jobs, threads, and earlier results."""

    jobs: Annotated[int, count("Run this many clips at a time.", RUNNING, show_default=True)] = 1
    threads: Annotated[int | None, count("Threads per process. \\[default: its share]", RUNNING)] = None
    resume: Annotated[bool, flag("--resume", "Continue: keep finished clips.", RUNNING)] = False
    overwrite: Annotated[bool, flag("--overwrite", "Replace an earlier evaluation.", OUTPUT)] = False


@dataclass(frozen=True)
class Choices:
    """The options of `propagate evaluate`; raises a UsageError for unknown names before the data set is read."""

    running: Running
    weights: options.Weights
    configs: Annotated[
        list[str] | None,
        options.configs_option("Preset, YAML file or baseline (static, flow); repeatable. \\[default: compact]"),
    ] = None
    changes: options.Changes = options.NO_CHANGES
    results: Annotated[
        list[Path] | None,
        options.option(
            metavar="DIR", help="Score these results, a folder per clip; repeatable.", panel=options.RUNNING
        ),
    ] = None
    output: Annotated[Path | None, options.output_option("DATASET_results; nothing for --results")] = None
    no_report: Annotated[bool, options.flag("--no-report", "Write no plots and no report.html.", options.OUTPUT)] = (
        False
    )

    def __post_init__(self) -> None:
        _check_names(self.configs or ())


@dataclass(frozen=True)
class SweepChoices:
    """The options of `propagate sweep`; raises a UsageError for an unknown preset."""

    running: Running
    weights: options.Weights
    cache: options.Cache
    assignments: Annotated[
        list[str],
        options.option(
            "--set",
            metavar="A.B=V1,V2,...",
            help="Values of one or two settings; lists in brackets: a.b=[1,2],[3]. One value: fixed.",
            panel=options.SETTINGS,
        ),
    ]
    config: options.Config = None
    device: options.Device = None
    max_memory: options.MaxMemory = None
    output: Annotated[Path | None, options.output_option("DATASET_sweep")] = None

    def __post_init__(self) -> None:
        _check_names([self.config] if self.config else ())


def _check_names(configs: Sequence[str]) -> None:
    from propagate.benchmarks.running.methods import check_name  # with torch, which takes seconds

    for config in configs:
        check_name(config)


def add_data_sets(app: typer.Typer, act: Callable[..., int], examples: str) -> None:
    """Add a command for each data set, which calls `act(terminal, benchmark, choices)` for the exit code."""
    for number, (name, load) in enumerate(DATA_SETS.items()):
        epilog = examples if number == 0 else None
        app.command(name, epilog=epilog)(command(act, benchmark=_with_options(load)))


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
    kind, chosen = get_args(parameter.annotation)
    assert isinstance(chosen, Option)
    shows_default = parameter.default not in (inspect.Parameter.empty, None)
    more = {"min": chosen.min, "max": chosen.max, "show_default": shows_default}
    names = [chosen.name] if chosen.name else []
    return Annotated[kind, option(*names, help=chosen.help, metavar=chosen.metavar, panel="Data set", **more)]
