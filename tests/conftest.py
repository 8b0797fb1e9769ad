"""Shared by all tests: shapes and dtypes of every annotated function are checked while the tests run."""

from __future__ import annotations

import os
import tempfile

import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # the hook looks it up by name and does not import it itself

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="propagate-tests-")  # never the user's own cache
install_import_hook("propagate", f"{tests.typechecker.__name__}.check")


@pytest.fixture(autouse=True)
def program_of_a_usual_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates of memory must not depend on what tests before have loaded; tests/app/test_max_memory.py measures."""
    for known in ("resident_bytes", "peak_bytes"):
        monkeypatch.setattr(f"propagate.planning.plan.{known}", lambda: 450 * 2**20)
