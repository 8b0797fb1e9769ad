"""`propagate evaluate`: data sets, scored by their official rules."""

# Annotations are evaluated here, see `options.command`.
from typing import TYPE_CHECKING

import typer

from propagate.app.evaluate.data_sets import Choices, add_data_sets
from propagate.app.terminal.console import Terminal

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark

_EXAMPLES = (
    "Examples:\n\n"
    "propagate evaluate davis --data DAVIS --year 2017 --config compact --config flow -o out\n\n"
    "propagate evaluate davis --data DAVIS --year 2016 --results masks_of_somebody"
)


def _evaluate(terminal: Terminal, benchmark: "Benchmark", choices: Choices) -> int:
    from propagate.app.evaluate.evaluation import evaluate

    return evaluate(terminal, benchmark, choices)


app = typer.Typer(
    help="Run presets and baselines on a data set and score them by its official rules, or score existing results.",
    no_args_is_help=True,
)
add_data_sets(app, _evaluate, _EXAMPLES)
