from __future__ import annotations

import numpy as np
import pytest

from propagate.errors import InputError, UsageError
from propagate.labels import (
    CrwMaskCodec,
    DiftMaskCodec,
    JhmdbCodec,
    KeypointCodec,
    LabelCodec,
    MaskCodec,
    codec_for,
    label_channels,
)
from propagate.settings import KeypointLabelSettings, LabelSettings, MaskLabelSettings
from propagate.types import Keypoints, Mask


def mask_of(*ids: int) -> Mask:
    return Mask(np.array([ids], np.uint8))


def pose_of(*names: str) -> Keypoints:
    return Keypoints(np.zeros((len(names), 2), np.float32), names, ((0, 0),))


def test_masks_get_a_codec_for_all_their_objects():
    options = MaskLabelSettings(encode="area", upsample="bilinear", stretch=False, vanish=0.25)
    codec = codec_for([mask_of(0, 9, 255), mask_of(3, 9, 0)], 8, LabelSettings(masks=options))
    assert isinstance(codec, MaskCodec)
    assert codec.ids == (3, 9)
    assert (codec.encoding, codec.upsampling, codec.stretch, codec.vanish) == ("area", "bilinear", False, 0.25)


@pytest.mark.parametrize(("upsample", "guided"), [("guided", True), ("bicubic", False), ("bilinear", False)])
def test_outlines_follow_the_picture_where_asked_for(upsample, guided):
    options = MaskLabelSettings(upsample=upsample)
    codec = codec_for([mask_of(1)], 8, LabelSettings(masks=options))
    assert isinstance(codec, MaskCodec)
    assert codec.guided is guided


def test_keypoints_get_a_codec_for_their_joints():
    options = KeypointLabelSettings(encode="bilinear", sigma=1.5, absent=0.3)
    codec = codec_for([pose_of("a", "b"), pose_of("a", "b")], 8, LabelSettings(keypoints=options))
    assert isinstance(codec, KeypointCodec)
    assert (codec.names, codec.skeleton) == (("a", "b"), ((0, 0),))
    assert (codec.encoding, codec.sigma, codec.absent) == ("bilinear", 1.5, 0.3)


def test_the_scripts_codecs():
    dift = codec_for([mask_of(1, 2)], 16, LabelSettings(masks=MaskLabelSettings(codec="dift")))
    assert isinstance(dift, DiftMaskCodec)
    assert (dift.ids, dift.stride) == ((1, 2), 16)
    crw = codec_for([mask_of(1, 2)], 16, LabelSettings(masks=MaskLabelSettings(codec="crw")))
    assert isinstance(crw, CrwMaskCodec)
    assert crw.ids == (1, 2)
    jhmdb = codec_for([pose_of("a")], 8, LabelSettings(keypoints=KeypointLabelSettings(codec="jhmdb")))
    assert isinstance(jhmdb, JhmdbCodec)
    assert (jhmdb.names, jhmdb.skeleton) == (("a",), ((0, 0),))


def test_all_are_label_codecs():
    for codec in (
        MaskCodec((1,)),
        DiftMaskCodec((1,), stride=8),
        CrwMaskCodec((1,)),
        KeypointCodec(()),
        JhmdbCodec(()),
    ):
        assert isinstance(codec, LabelCodec)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "no anchors"),
        ([mask_of(1), pose_of("a")], "masks and keypoints"),
        ([pose_of("a", "b"), pose_of("a", "c")], "has the joints c, the first has a, b"),
        ([mask_of(1, 2), Mask(np.array([[1]], np.uint8), absent={3})], "object 3 is absent, and no anchor shows it"),
    ],
)
def test_anchors_that_do_not_fit_together(anchors, message):
    with pytest.raises(UsageError, match=message):
        codec_for(anchors, 8, LabelSettings())


@pytest.mark.parametrize("anchors", [[mask_of(0, 255)], [Keypoints(np.full((1, 2), np.nan), ("a",))]])
def test_anchors_that_show_nothing(anchors):
    with pytest.raises(InputError, match=r"No annotated frame shows an? (object|joint)"):
        codec_for(anchors, 8, LabelSettings())


def test_later_keypoints_may_name_some_of_the_joints():
    codec = codec_for([pose_of("a", "b"), pose_of("b")], 8, LabelSettings())
    assert isinstance(codec, KeypointCodec)
    assert codec.names == ("a", "b")


def test_channels_are_the_background_and_every_object_or_joint():
    assert label_channels([mask_of(0, 9, 255)]) == 2
    assert label_channels([mask_of(0, 9), mask_of(3, 9), mask_of(3, 4)]) == 4
    assert label_channels([pose_of("a", "b", "c")] * 2) == 4
