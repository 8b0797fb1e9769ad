"""The options of `propagate evaluate` and `propagate sweep`, beside those of the data set."""

# Annotations are evaluated here, see `options.command`.
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from propagate.app import options
from propagate.app.evaluate.data_sets import Running


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
        options.option(metavar="DIR", help="Score these results, a folder per clip; repeatable.", panel="Running"),
    ] = None
    output: Annotated[Path | None, options.output_option("DATASET_results; nothing for --results")] = None
    no_report: Annotated[
        bool, options.option("--no-report", help="Write no plots and no report.html.", panel=options.OUTPUT)
    ] = False

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
