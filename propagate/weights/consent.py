"""Who agrees to downloads: the user, by an option or an answer. Processes that run clips download nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["CONSENT", "are_forbidden", "ask", "asking", "forbid", "is_offline", "may_download"]

CONSENT = "PROPAGATE_DOWNLOADS"

_FALSE, _TRUE = ("", "0", "false", "no", "off"), ("1", "true", "yes", "on")
_ask: ContextVar[Callable[[str], bool] | None] = ContextVar("ask", default=None)
_forbidden: list[bool] = []  # holds one value in a process that downloads nothing


def may_download() -> bool:
    """Whether downloads were agreed to (`--yes`, or PROPAGATE_DOWNLOADS=yes), in this process and those it starts."""
    return os.environ.get(CONSENT, "").lower() in _TRUE


def is_offline() -> bool:
    """Whether the environment forbids downloads (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.lower() not in _FALSE for value in switches)


def forbid() -> None:
    """Forbid downloads to this process for its life: the one that started it has fetched what is needed."""
    _forbidden[:] = [True]


def are_forbidden() -> bool:
    """Whether this process was started to work with what is there."""
    return bool(_forbidden)


@contextmanager
def asking(ask: Callable[[str], bool]) -> Iterator[None]:
    """Ask before a download, in this block.

    Args:
        ask: gets a question that names models, sizes and licences.
    """
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def ask(question: str) -> bool:
    """Whether the user says yes; no where nobody is there to be asked."""
    answer = _ask.get()
    return answer is not None and answer(question)
