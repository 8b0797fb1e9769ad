"""Threads of the transfer step on a CPU, which never wait for each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import Any

import torch

Run = Callable[[Callable[[Any], None], list[Any]], None]


def in_threads(threads: int) -> Run:
    """A function that calls a function with each of some things, `threads` at a time."""

    def run(function: Callable[[Any], None], things: list[Any]) -> None:
        if threads == 1:
            for thing in things:
                function(thing)
        else:
            for _ in _pool(threads).map(function, things):  # raises what a thread raised
                pass

    return run


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose torch operations take one thread each: torch's own would wait for each other at every product."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="transfer")
    # torch takes the number for a thread that sets it, and also for threads that are yet to come
    usual = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def start() -> None:
        torch.set_num_threads(1)
        ready.wait()

    for _ in range(threads):
        pool.submit(start)
    ready.wait()
    torch.set_num_threads(usual)
    return pool


if hasattr(os, "register_at_fork"):  # a child has the pool's object and none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
