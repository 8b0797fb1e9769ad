"""The run-time type checker of the tests: beartype, with an int where a float is asked for allowed, as in Python."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
