"""The options of `propagate evaluate` beside those of the data set."""

# Annotations are evaluated here, see `options.command`.
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from propagate.app import options
from propagate.app.evaluate.data_sets import Running


@dataclass(frozen=True)
class Choices:
    """What the user asked for.

    Raises:
        UsageError: a name that no preset and no baseline has; the data set has not been read yet.
    """

    running: Running
    weights: options.Weights
    configs: Annotated[
        list[str] | None,
        options.option(
            "--config",
            "-c",
            metavar="NAME_OR_FILE",
            help="Preset, YAML file or baseline (static, flow); repeatable. \\[default: compact]",
            panel=options.SETTINGS,
        ),
    ] = None
    assignments: options.Assignments = None
    device: options.Device = None
    max_memory: options.MaxMemory = None
    results: Annotated[
        list[Path] | None,
        options.option(metavar="DIR", help="Score these results, a folder per clip; repeatable.", panel="Running"),
    ] = None
    output: Annotated[
        Path | None,
        options.option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write results, scores and report here. \\[default: DATASET_results; nothing for --results]",
            panel=options.OUTPUT,
        ),
    ] = None
    no_report: Annotated[
        bool, options.option("--no-report", help="Write no plots and no report.html.", panel=options.OUTPUT)
    ] = False

    def __post_init__(self) -> None:
        from propagate.benchmarks.running.methods import check_name

        for config in self.configs or ():
            check_name(config)

    @property
    def changes(self) -> Sequence[str]:
        """`--set` and `--max-memory`, as assignments."""
        return options.with_max_memory(self.assignments or (), self.max_memory)
