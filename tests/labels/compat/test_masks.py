"""The DAVIS scripts' mask codecs beyond what the reference data cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.errors import InputError
from propagate.labels import CrwMaskCodec, DiftMaskCodec
from propagate.labels.compat.masks import stretch_channels
from propagate.types import Mask
from tests.labels.frames import black_frame

CODECS = [lambda ids: DiftMaskCodec(ids, stride=8), CrwMaskCodec]


@pytest.fixture
def square() -> Mask:
    ids = np.zeros((64, 96), np.uint8)
    ids[16:48, 24:72] = 40
    return Mask(ids)


@pytest.mark.parametrize("codec_of", CODECS)
def test_round_trip_and_confidence(codec_of, square):
    codec = codec_of((40,))
    prediction = codec.decode(codec.encode(square, (64, 96), (8, 12)), black_frame(64, 96))
    assert prediction.mask.objects == (40,)
    wrong = (prediction.mask.ids != square.ids).sum()
    assert wrong <= 4 * 4 * 9  # at most a few pixels in each corner
    assert 0.8 < prediction.confidence[40] <= 1


@pytest.mark.parametrize("codec_of", CODECS)
def test_void_becomes_background(codec_of, square):
    square.ids[:8] = 255
    soft = codec_of((40,)).encode(square, (64, 96), (8, 12))
    torch.testing.assert_close(soft.sum(0), torch.ones(8, 12))
    assert (soft[0, 0] == 1).all()


@pytest.mark.parametrize("codec_of", CODECS)
def test_unknown_objects_are_an_error(codec_of, square):
    with pytest.raises(InputError, match=r"\[40\]"):
        codec_of((1,)).encode(square, (64, 96), (8, 12))


@pytest.mark.parametrize("codec_of", CODECS)
def test_an_object_without_labels_is_not_predicted(codec_of):
    soft = torch.zeros(3, 8, 12)
    soft[0] = 1
    soft[1, 2:5, 2:5] = 0.9
    soft[0, 2:5, 2:5] = 0.1
    prediction = codec_of((1, 2)).decode(soft, black_frame(64, 96))
    assert prediction.mask.objects == (1,)
    assert prediction.confidence[2] == 0


@pytest.mark.parametrize("codec_of", CODECS)
def test_the_given_mask_is_untouched(codec_of, square):
    assert codec_of((40,)).given(square, black_frame(64, 96)).mask is square


def test_dift_loses_what_no_sample_hits():
    ids = np.zeros((64, 96), np.uint8)
    ids[0:3, 0:3] = 1
    assert DiftMaskCodec((1,), stride=8).encode(Mask(ids), (64, 96), (8, 12))[1].max() == 0


def test_dift_stretches_the_background_too():
    stretched = stretch_channels(torch.tensor([[[0.4, 0.6]], [[0.2, 0.1]]]))
    torch.testing.assert_close(stretched, torch.tensor([[[0.0, 1]], [[1, 0]]]))


def test_dift_constant_background_beats_a_constant_object():
    soft = torch.stack([torch.full((4, 4), 1.0), torch.full((4, 4), 0.5)])
    assert not DiftMaskCodec((1,), stride=8).decode(soft, black_frame(32, 32)).mask.ids.any()
    soft[0] = 0  # not above 0 and so not stretched; the constant object is NaN and wins
    assert DiftMaskCodec((1,), stride=8).decode(soft, black_frame(32, 32)).mask.ids.all()


def test_dift_decodes_at_the_working_size_and_samples_to_the_frame():
    soft = torch.zeros(2, 2, 2)
    soft[1, 0, 0], soft[0] = 1, 1 - soft[1]
    ids = DiftMaskCodec((9,), stride=4).decode(soft, black_frame(3, 5)).mask.ids
    at_working_size = DiftMaskCodec((9,), stride=4).decode(soft, black_frame(8, 8)).mask.ids
    rows, columns = [1, 4, 6], [0, 2, 4, 5, 7]
    assert (ids == at_working_size[np.ix_(rows, columns)]).all()


def test_crw_reads_two_by_two_pixels_a_cell():
    ids = np.zeros((8, 8), np.uint8)
    ids[3, 3] = 1
    assert CrwMaskCodec((1,)).encode(Mask(ids), (8, 8), (1, 1))[1].item() == pytest.approx(0.25)
    ids[3, 3], ids[0, 0] = 0, 1
    assert CrwMaskCodec((1,)).encode(Mask(ids), (8, 8), (1, 1))[1].item() == 0
