"""Types of options that several extractors have, with the ranges that make sense for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

EnsembleSize = Annotated[int, Field(ge=1, le=1024)]
"""Draws of noise that are averaged: each costs a pass, and what is left of the noise falls with their root."""

Multiple = Annotated[int, Field(ge=1, le=1024)]
"""Pixels that both sides of a picture are made a multiple of: a larger one leaves nothing of most pictures."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""Of a generator, which takes 32 bits: two seeds that differ in others would be one."""

Count = Annotated[int, Field(ge=1, le=100_000)]
"""Of anything that is made or done one by one."""
