"""Which frames are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.errors import UsageError
from propagate.video.reader import select


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 30), st.integers(-3, 35), st.none() | st.integers(-3, 35), st.integers(-1, 40))
def test_a_selection_is_a_slice_of_the_video_or_an_error(
    count: int, from_frame: int, to_frame: int | None, stride: int
) -> None:
    end = count if to_frame is None else to_frame
    fits = 0 <= from_frame < end <= count and stride >= 1
    if fits:
        chosen = select(count, Path("a.mp4"), from_frame, to_frame, stride)
        assert list(chosen) == list(range(count))[from_frame:to_frame:stride]
    else:
        with pytest.raises(UsageError) as caught:
            select(count, Path("a.mp4"), from_frame, to_frame, stride)
        assert caught.value.remedy
