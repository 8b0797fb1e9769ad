"""`propagate sweep`: one or two settings varied on a data set."""

# Annotations are evaluated here, see `options.command`.
from typing import TYPE_CHECKING

import typer

from propagate.app.evaluate.data_sets import SweepChoices, add_data_sets
from propagate.app.terminal.console import Terminal

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark

_EXAMPLES = (
    "Examples:\n\n"
    "propagate sweep davis --data DAVIS --year 2016 --set features.timestep=21,51,101 --set features.block=1,2 -o out"
    "\n\npropagate sweep davis --data DAVIS --year 2016 --config rgb --set propagation.top_k=1,5,10 --sequence dog"
)


def _sweep(terminal: Terminal, benchmark: "Benchmark", choices: SweepChoices) -> int:
    from propagate.app.evaluate.sweeping import sweep

    return sweep(terminal, benchmark, choices)


app = typer.Typer(
    help="Try all combinations of one or two settings on a data set: a table and a heat map.", no_args_is_help=True
)
add_data_sets(app, _sweep, _EXAMPLES)
