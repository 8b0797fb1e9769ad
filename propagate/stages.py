"""A pipeline's stages in threads of their own: in order, and never further ahead than said."""

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
    """The items, made in a thread of its own while the ones before are being used.

    The thread starts with the first item that is asked for. It ends with the last item, where making one raises
    (which is raised here, behind the items before it, with its traceback), and where this generator is closed or
    dropped early; then the item in work is still finished, and `items` closed if it is a generator.

    Warnings that are given while items are made go where those of the thread go that asked for the first one.

    Args:
        items: any iterable; it is used in the thread alone, and need not be safe to share.
        size: items that are made or in the making beyond the one that was given out last, 1 or more.
        initializer: called in the thread before anything else.

    Raises:
        ValueError: size below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    source, context = _through(items), copy_context()
    pool = ThreadPoolExecutor(1, "ahead", initializer or _nothing)
    try:
        waiting = deque(pool.submit(context.run, _next, source) for _ in range(size))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(context.run, _next, source))
            yield item
            del item  # what was used is not held while the next one is waited for
    finally:
        pool.shutdown(cancel_futures=True)
        source.close()


def _through(items: Iterable[_T]) -> Generator[_T, None, None]:
    # a generator that has raised is at its end; of other iterators, asked again, that is not certain
    yield from items


def _next(source: Generator[_T, None, None]) -> _T:
    return next(source, _END)


def _nothing() -> None: ...
