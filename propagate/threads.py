"""Thread pools whose results do not depend on the number of threads: one thread computes a whole piece of work.

torch would split a product or a norm among its threads and round the parts.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from threading import Barrier
from typing import Any, ParamSpec, TypeVar

import torch

MOST_THREADS = 16  # each holds the memory of its piece of work
Run = Callable[[Callable[[Any], None], list[Any]], None]
_P = ParamSpec("_P")
_T = TypeVar("_T")


def usual_threads() -> int:
    """Return the number of threads: torch's, up to `MOST_THREADS`."""
    return min(torch.get_num_threads(), MOST_THREADS)


def in_threads(threads: int) -> Run:
    """Return a parallel `map` without results. With several threads, torch uses one thread in each."""

    def run(function: Callable[[Any], None], items: list[Any]) -> None:
        deque(map(function, items) if threads == 1 else _pool(threads, "transfer").map(function, items), maxlen=0)

    return run


def on_one_thread(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a function of few operations: torch uses one thread in it, so that its bits never vary."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if torch.get_num_threads() == 1:
            return function(*args, **kwargs)
        return _pool(1, "single").submit(function, *args, **kwargs).result()

    return call


@lru_cache(maxsize=2)
def _pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads whose torch operations use one thread each: torch's own threads wait for each other at every product."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    # torch sets the number for the calling thread, and for threads that have not read theirs yet
    usual = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # else the first operation would read the usual number
        torch.set_num_threads(1)
        ready.wait()

    for _ in range(threads):
        pool.submit(start)
    ready.wait()
    torch.set_num_threads(usual)
    return pool


if hasattr(os, "register_at_fork"):  # a child inherits the pools without their threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
