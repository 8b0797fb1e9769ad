"""Frames from arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from propagate.errors import InputError, UsageError
from propagate.types import Frame
from propagate.video import frames_from_arrays
from tests.video.clips import paint, read_number


def test_arrays_become_numbered_and_timed_frames() -> None:
    frames = frames_from_arrays([paint(number) for number in range(5)], rate=10)
    for _ in range(2):
        assert [(f.index, read_number(f.pixels)) for f in frames] == [(n, n) for n in range(5)]
        assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_one_array_at_a_time() -> None:
    taken = []

    def source() -> Any:
        for number in range(5):
            taken.append(number)
            yield paint(number)

    frames = iter(frames_from_arrays(source()))
    assert taken == []
    next(frames)
    assert taken == [0]


def test_frames_pass_through() -> None:
    frame = Frame(paint(3), 17, 1.5)
    assert next(iter(frames_from_arrays([frame]))) is frame


def _float_frame() -> Frame:
    frame = Frame(paint(2), 2, 0.08)
    object.__setattr__(frame, "pixels", frame.pixels / 255)  # types are checked in tests alone
    return frame


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (paint(2, (60, 100)), "frame 2 is 100x60, the frames before it are 128x72"),
        (paint(2).astype(np.float32), "frame 2 has dtype float32"),
        (paint(2)[:, :, 0], r"frame 2 has shape \(72, 128\)"),
        (np.zeros((72, 128, 4), np.uint8), r"frame 2 has shape \(72, 128, 4\)"),
        (np.zeros((0, 128, 3), np.uint8), r"frame 2 has shape \(0, 128, 3\)"),
        ([[0, 0, 0]], "frame 2 has the type list"),
        (_float_frame(), "frame 2 has dtype float64"),
        (Frame(paint(2), 1, 0.08), "frame 2 has the index 1, as the frame before it"),
    ],
)
def test_the_wrong_array_is_named(bad: Any, message: str) -> None:
    arrays = [paint(0), paint(1), bad]
    with pytest.raises(InputError, match=message) as caught:
        list(frames_from_arrays(iter(arrays)))
    assert caught.value.remedy


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(UsageError, match="frames per second"):
        frames_from_arrays([], rate=rate)
