"""Data sets by name. `evaluate` and `sweep` have a command for each.

A new one is a folder beside `davis` whose `__init__.py` has a `load` function, and one line here. The parameters of
`load` become options of the commands, its docstring their help text.
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
