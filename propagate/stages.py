"""Run stages of a pipeline in threads: in order, with bounded lookahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

_T = TypeVar("_T")
_END: Any = object()


def ahead(
    items: Iterable[_T], size: int, *, initializer: Callable[[], None] | None = None
) -> Generator[_T, None, None]:
    """Yield the items, computed up to `size` (at least 1) ahead in another thread while earlier ones are used.

    The thread starts with the first item and calls `initializer` first. It ends with the last item, with an error
    (raised here after the items before it, with its traceback), or when this generator is closed or dropped; then the
    current item is finished, and `items` closed if it is a generator. Only the thread uses `items`, which need not be
    thread-safe. Warnings go where the warnings of the consuming thread go.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    source, context = _through(items), copy_context()

    def advance() -> Any:
        return context.run(next, source, _END)

    pool = ThreadPoolExecutor(1, "ahead", initializer)
    try:
        waiting = deque(pool.submit(advance) for _ in range(size))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(advance))
            yield item
            del item  # not held while waiting for the next one
    finally:
        pool.shutdown(cancel_futures=True)
        source.close()


def _through(items: Iterable[_T]) -> Generator[_T, None, None]:
    # a generator that raised is finished; other iterators may continue
    yield from items
