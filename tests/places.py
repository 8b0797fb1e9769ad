"""Where the tests find the checkout and the published data."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PARITY_DATA = CHECKOUT / "tests" / "parity" / "data"
