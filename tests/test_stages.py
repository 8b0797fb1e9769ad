from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from propagate.stages import ahead

_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _others_threads():
    """A stream that another test has left unfinished keeps its thread as long as something refers to it."""
    gc.collect()
    _before.clear()
    _before.update(threading.enumerate())


def threads() -> int:
    """Of the streams of this test."""
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate() if thread not in _before)


@given(items=st.lists(st.integers()), size=st.integers(1, 5), nested=st.integers(1, 3))
@hypothesis_settings(deadline=None, max_examples=25)
def test_the_items_are_the_same_in_the_same_order(items, size, nested):
    through = items
    for _ in range(nested):
        through = ahead(through, size)
    assert list(through) == items
    assert threads() == 0


@pytest.mark.parametrize("size", [1, 3])
def test_it_is_never_further_ahead_than_said(size):
    made, may_go_on = [], threading.Semaphore(0)

    def items() -> Iterator[int]:
        for item in itertools.count():
            made.append(item)
            may_go_on.release()
            yield item

    stream = ahead(items(), size)
    assert made == []
    for used in range(1, 6):
        assert next(stream) == used - 1
        for _ in range(1 if used > 1 else 1 + size):  # as much as is allowed is done
            assert may_go_on.acquire(timeout=30)
        time.sleep(0.01)
        assert len(made) == used + size
    stream.close()
    assert threads() == 0


def test_it_works_while_the_item_before_is_used():
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        begun.set()
        yield 1

    stream = ahead(items(), 1)
    assert next(stream) == 0
    assert begun.wait(timeout=30)
    assert next(stream) == 1


def test_what_raises_comes_behind_the_items_before_with_its_traceback():
    def broken_stage() -> Iterator[int]:
        yield from (1, 2)
        raise ZeroDivisionError("by accident")

    got = []
    with pytest.raises(ZeroDivisionError, match="by accident") as caught:
        got.extend(ahead(ahead(broken_stage(), 2), 1))
    assert got == [1, 2]
    assert "broken_stage" in [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert threads() == 0


class Unending:
    """An iterator that would go on after it has raised."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self) -> Unending:
        return self

    def __next__(self) -> int:
        self.asked += 1
        raise OSError("gone")


def test_what_has_raised_is_not_asked_again():
    unending = Unending()
    with pytest.raises(OSError, match="gone"):
        next(ahead(unending, 4))
    assert unending.asked == 1


@pytest.mark.parametrize("how", ["closed", "dropped", "raised", "interrupted"])
def test_stopping_early_ends_thread_and_source(how):
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    stream = ahead(ahead(items(), 2), 2)
    assert next(stream) == 0
    assert threads() == 2
    if how == "closed":
        stream.close()
    elif how == "dropped":
        del stream
    else:
        error = KeyboardInterrupt if how == "interrupted" else RuntimeError
        with pytest.raises(error):
            stream.throw(error())
    gc.collect()
    assert threads() == 0
    assert closed == [True]


def test_nothing_is_started_before_the_first_item_is_asked_for():
    stream = ahead(itertools.count(), 2)
    assert threads() == 0
    del stream


def test_warnings_reach_whoever_asked_for_the_first_item():
    def items() -> Iterator[int]:
        yield 1
        warnings.warn("from the stage", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(ahead(ahead(items(), 1), 1)) == [1]
    assert [str(warning.message) for warning in caught] == ["from the stage"]


def test_the_initializer_runs_in_the_thread():
    here = threading.local()

    def initialize() -> None:
        here.value = "set"

    def items() -> Iterator[str]:
        yield here.value

    assert list(ahead(items(), 1, initializer=initialize)) == ["set"]
    assert not hasattr(here, "value")


def test_what_was_used_is_not_held():
    class Item: ...

    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    def items() -> Iterator[Item]:
        for _ in range(8):
            item = Item()
            alive.add(item)
            yield item

    stream = ahead(items(), 2)
    for _ in range(6):
        next(stream)
        gc.collect()
        # two that are made, and the last of them that the source still names
        assert len(alive) <= 2 + 1
    stream.close()


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        next(ahead([1], 0))


def test_a_program_that_leaves_it_open_ends():
    imports = "import itertools; from propagate.stages import ahead"
    program = f"{imports}; stream = ahead(itertools.count(), 2); print(next(stream))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "0\n", "")
