"""Data sets by name, each a command of `evaluate` and `sweep`.

To add one, add a folder beside `davis` with a `load` function in its `__init__.py`, and one line here. The parameters
of `load` become options of the commands, its docstring their help text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from propagate.benchmarks import badja, davis, jhmdb

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark

DATA_SETS: dict[str, Callable[..., Benchmark]] = {
    "davis": davis.load,
    "jhmdb": jhmdb.load,
    "badja": badja.load,
}
