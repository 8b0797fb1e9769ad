"""Passes on an extractor whose draws are added up one by one, on a device whose memory runs out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.features import build_extractor
from propagate.features.diffusion.core import Noise, ensemble_features
from propagate.features.extractor import EnsembleExtractor
from propagate.features.passes import Passes, PassSize, SmallerPassWarning, largest_pass


class Draws:
    """Cubes of noised pictures; no more than `room` of them go through at a time."""

    stride, channels, multiple = 1, 3, 1

    def __init__(self, ensemble_size: int, draws_per_pass: int, room: int = 10**6) -> None:
        self.noise = Noise(ensemble_size, mode="fresh")
        self.draws_per_pass, self.room = draws_per_pass, room
        self.passes: list[int] = []

    def __call__(self, images, indices=None):
        return ensemble_features(
            images, self._network, noise=self.noise, alpha_bar=0.5, indices=indices, draws_per_pass=self.draws_per_pass
        )

    def _network(self, noisy):
        if len(noisy) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.passes.append(len(noisy))
        return noisy * noisy * noisy


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def test_halves():
    sizes = [PassSize(4, 8)]
    while sizes[-1].half is not None:
        sizes.append(sizes[-1].half)
    assert [(size.frames, size.draws) for size in sizes] == [(4, 8), (4, 4), (4, 2), (4, 1), (2, 1), (1, 1)]
    assert str(PassSize(1, 8)) == "1 frame x 8 draws"


def test_the_largest_pass_is_the_extractors_own():
    assert largest_pass(Draws(8, 4), 3) == PassSize(3, 4)
    assert largest_pass(build_extractor("rgb", device="cpu"), 3) == PassSize(1, 1)
    compact = build_extractor("compact", device="cpu", ensemble_size=4, draws_per_pass=9)
    assert isinstance(compact, EnsembleExtractor)
    before = torch.get_num_threads()
    try:
        for threads, frames in ((1, 1), (3, 3), (20, 8)):  # side by side, one thread each
            torch.set_num_threads(threads)
            assert largest_pass(compact, 1) == PassSize(frames, 4)
    finally:
        torch.set_num_threads(before)


@given(frames=st.integers(1, 5), batch=st.integers(1, 5), ensemble=st.integers(1, 6), draws=st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_the_features_are_the_same_to_the_bit_whatever_the_pass(frames, batch, ensemble, draws):
    images, indices = pictures(batch), list(range(7, 7 + batch))
    expected = Draws(ensemble, ensemble)(images, indices)
    extractor = Draws(ensemble, ensemble)
    assert torch.equal(Passes(extractor, PassSize(frames, draws))(images, indices), expected)
    assert max(extractor.passes) == min(frames, batch) * min(draws, ensemble)
    assert extractor.draws_per_pass == ensemble  # left as it was


def test_frames_without_indices_are_numbered_through():
    images = pictures(3)
    assert torch.equal(Passes(Draws(2, 2), PassSize(1, 1))(images), Draws(2, 2)(images))


@pytest.mark.parametrize("room", [15, 8])
def test_out_of_memory_halves_the_draws_once_and_changes_no_bit(room):
    """2 frames x 8 draws are 16 pictures; 2 x 4 are 8."""
    images, extractor = pictures(2), Draws(8, 8, room)
    halving = Passes(extractor, PassSize(2, 8))
    with pytest.warns(SmallerPassWarning) as caught:
        found = halving(images, [3, 4])
    assert [str(warning.message) for warning in caught] == [
        "The GPU's memory ran out with 2 frames x 8 draws at a time; going on with 2 frames x 4 draws. "
        "The result is the same."
    ]
    again = halving(images, [3, 4])  # no second warning: warnings are errors here
    assert torch.equal(found, Draws(8, 8)(images, [3, 4]))
    assert torch.equal(again, found)
    assert extractor.passes == [8, 8, 8, 8]
    assert extractor.draws_per_pass == 8


def test_out_of_memory_halves_the_frames_where_there_is_one_draw():
    images, extractor = pictures(4), Draws(1, 1, room=2)
    with pytest.warns(SmallerPassWarning, match="4 frames x 1 draw at a time; going on with 2 frames x 1 draw"):
        found = Passes(extractor, PassSize(4))(images)
    assert torch.equal(found, Draws(1, 1)(images))
    assert extractor.passes == [2, 2]


def test_a_batch_that_is_smaller_than_the_pass_is_halved_itself():
    extractor = Draws(1, 1, room=1)
    with pytest.warns(SmallerPassWarning, match="8 frames x 1 draw at a time; going on with 1 frame x 1 draw"):
        Passes(extractor, PassSize(8))(pictures(2))
    assert extractor.passes == [1, 1]


def test_half_that_is_still_too_much_is_the_devices_own_error():
    with pytest.warns(SmallerPassWarning), pytest.raises(torch.OutOfMemoryError):
        Passes(Draws(8, 8, room=3), PassSize(1, 8))(pictures(1))


def test_only_once():
    extractor = Draws(8, 8, room=4)
    passes = Passes(extractor, PassSize(1, 8))
    with pytest.warns(SmallerPassWarning):
        passes(pictures(1))
    extractor.room = 2
    with pytest.raises(torch.OutOfMemoryError):
        passes(pictures(1))
    assert extractor.draws_per_pass == 8


def test_one_draw_of_one_frame_cannot_be_halved():
    passes = Passes(Draws(1, 1, room=0), PassSize(1))
    with pytest.raises(torch.OutOfMemoryError):  # and no warning: warnings are errors here
        passes(pictures(1))


def test_other_errors_pass_through():
    def fail(images, indices=None):
        raise ZeroDivisionError

    extractor = build_extractor("rgb", device="cpu")
    broken = type(
        "Broken", (), {"__call__": staticmethod(fail), "stride": 8, "channels": 48, "multiple": 8, "device": "cpu"}
    )()
    assert largest_pass(extractor, 2) == largest_pass(broken, 2)
    with pytest.raises(ZeroDivisionError):
        Passes(broken, PassSize(2))(pictures(2))
