"""Consent to downloads: by an option, an environment variable or an answer. Worker processes download nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

CONSENT = "PROPAGATE_DOWNLOADS"

_FALSE, _TRUE = ("", "0", "false", "no", "off"), ("1", "true", "yes", "on")
_ask: ContextVar[Callable[[str], bool] | None] = ContextVar("ask", default=None)
_forbidden = Event()


def may_download() -> bool:
    """Return whether the user agreed to downloads, by `--yes` or PROPAGATE_DOWNLOADS=yes."""
    return os.environ.get(CONSENT, "").lower() in _TRUE


def is_offline() -> bool:
    """Return whether the environment forbids downloads (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    return any(os.environ.get(name, "").lower() not in _FALSE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def forbid() -> None:
    """Forbid downloads in this process for good: its parent has fetched everything."""
    _forbidden.set()


def are_forbidden() -> bool:
    """Return whether `forbid` was called in this process."""
    return _forbidden.is_set()


@contextmanager
def asking(ask: Callable[[str], bool]) -> Iterator[None]:
    """Call `ask` with a question (models, sizes, licences) before each download in this block."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def ask(question: str) -> bool:
    """Return the user's answer; False where nobody can be asked."""
    answer = _ask.get()
    return answer is not None and answer(question)
