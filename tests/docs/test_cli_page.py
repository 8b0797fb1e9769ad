"""docs/cli.md is what `make docs` writes."""

from __future__ import annotations

import runpy

from tests.places import CHECKOUT


def test_the_page_is_up_to_date():
    written = runpy.run_path(str(CHECKOUT / "docs" / "cli_page.py"))
    assert written["PAGE"].read_text("utf-8") == written["page"](), "run `make docs`"
