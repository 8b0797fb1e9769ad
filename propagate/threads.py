"""Threads of ours, whose sums do not depend on how many there are.

torch splits a product or a norm among its threads, and the parts are rounded one by one: another number of threads
gives other last digits. Here a piece of work is one thread's, whole, and threads share out the pieces.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from threading import Barrier
from typing import Any, ParamSpec, TypeVar

import torch

MOST_THREADS = 16  # each holds what its piece of work takes

Run = Callable[[Callable[[Any], None], list[Any]], None]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def usual_threads() -> int:
    """Return how many threads share out pieces of work: as many as torch would take, up to `MOST_THREADS`."""
    return min(torch.get_num_threads(), MOST_THREADS)


def in_threads(threads: int) -> Run:
    """Return a function that calls a function with each of some things, `threads` at a time.

    With `threads` above 1, torch has one thread in each call, and calls never wait for one another.
    """

    def run(function: Callable[[Any], None], things: list[Any]) -> None:
        if threads == 1:
            for thing in things:
                function(thing)
        else:
            for _ in _pool(threads).map(function, things):  # raises what a thread raised
                pass

    return run


def on_one_thread(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a function of few operations: torch has one thread in it, and its result the same bits everywhere."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if torch.get_num_threads() == 1:
            return function(*args, **kwargs)
        return _single().submit(function, *args, **kwargs).result()

    return call


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose torch operations take one thread each: torch's own would wait for each other at every product."""
    return _started(threads, "transfer")


@lru_cache(maxsize=1)
def _single() -> ThreadPoolExecutor:
    return _started(1, "single")


def _started(threads: int, name: str) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    # torch takes the number for the thread that sets it, and for threads that have not asked for theirs yet
    usual = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # else the first operation would ask, and be told the usual number
        torch.set_num_threads(1)
        ready.wait()

    for _ in range(threads):
        pool.submit(start)
    ready.wait()
    torch.set_num_threads(usual)
    return pool


def _forget() -> None:
    _pool.cache_clear()
    _single.cache_clear()


if hasattr(os, "register_at_fork"):  # a child has the pools' objects and none of their threads
    os.register_at_fork(after_in_child=_forget)
