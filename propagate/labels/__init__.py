"""Label codecs turn masks or keypoints into soft labels on a grid and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from propagate.errors import InputError, UsageError
from propagate.labels.annotated import SoftLabels
from propagate.labels.compat.jhmdb import JhmdbCodec
from propagate.labels.compat.masks import CrwMaskCodec, DiftMaskCodec
from propagate.labels.keypoints import KeypointCodec
from propagate.labels.masks import MaskCodec, objects_of
from propagate.settings import LabelSettings
from propagate.types import Frame, Keypoints, Label, Mask, Prediction

__all__ = [
    "CrwMaskCodec",
    "DiftMaskCodec",
    "JhmdbCodec",
    "KeypointCodec",
    "LabelCodec",
    "MaskCodec",
    "codec_for",
    "label_channels",
]

LabelT = TypeVar("LabelT", bound=Label, contravariant=True)


@runtime_checkable
class LabelCodec(Protocol[LabelT]):
    """One kind of label, to the grid and back. Channel 0 is the background; the others are objects or joints."""

    def encode(self, label: LabelT, frame_size: tuple[int, int], grid: tuple[int, int]) -> SoftLabels:
        """Return the float32 soft labels of an anchor on a grid of (rows, columns), on the CPU.

        Raises:
            InputError: an object or joint that the codec does not carry.
        """

    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Return the prediction at the frame's own size, with a confidence per object or joint."""

    def untouched(self, label: LabelT) -> tuple[int, ...]:
        """Return the channels of objects or joints that an annotated frame neither shows nor calls absent."""

    def lost(self, label: LabelT, soft: SoftLabels) -> tuple[str, ...]:
        """Return the objects or joints that are missing in soft labels: too small or too far outside."""

    def complete(self, given: SoftLabels, predicted: SoftLabels, untouched: tuple[int, ...]) -> SoftLabels:
        """Return an annotated frame's soft labels, with the prediction for its untouched channels."""

    def given(self, label: LabelT, frame: Frame, soft: SoftLabels | None = None) -> Prediction:
        """Return an annotated frame's label as its prediction, with untouched channels decoded from `soft`."""


def codec_for(anchors: Sequence[Label], stride: int, settings: LabelSettings) -> LabelCodec[Any]:
    """Return the codec for the labels of these anchors.

    Args:
        anchors: one or more in the order of their frames, all masks or all keypoints. The objects are those of all
            masks together, the joints those of the first anchor; later keypoints may name some of them.
        stride: pixels of the working size per grid cell.
        settings: the codec and its options.

    Raises:
        InputError: no anchor shows an object, or a joint with a position.
        UsageError: no anchors, masks and keypoints together, keypoints with a joint that the first anchor does not
            name, or a mask with an absent object that no mask shows.
    """
    masks = [anchor for anchor in anchors if isinstance(anchor, Mask)]
    poses = [anchor for anchor in anchors if isinstance(anchor, Keypoints)]
    if not anchors or (masks and poses):
        raise UsageError(
            "The anchors are masks and keypoints together." if anchors else "There are no anchors.",
            "Give masks, or keypoints; carry them in two runs.",
        )
    if not (objects_of(masks) or any(pose.present.any() for pose in poses)):
        what = "joint with a position" if poses else "object"
        raise InputError(f"No annotated frame shows {'a' if poses else 'an'} {what}.", "There is nothing to carry.")
    return _mask_codec(masks, stride, settings) if masks else _keypoint_codec(poses, settings)


def label_channels(anchors: Sequence[Label]) -> int:
    """Return the number of channels of these anchors' soft labels: the background and each object or joint."""
    first = anchors[0]
    if isinstance(first, Keypoints):
        return 1 + len(first.names)
    return 1 + len(objects_of(anchor for anchor in anchors if isinstance(anchor, Mask)))


def _mask_codec(masks: list[Mask], stride: int, settings: LabelSettings) -> LabelCodec[Mask]:
    ids, options = objects_of(masks), settings.masks
    if unknown := sorted({i for mask in masks for i in mask.absent} - set(ids)):
        raise UsageError(
            f"An anchor says that object {unknown[0]} is absent, and no anchor shows it.",
            f"The objects are {', '.join(map(str, ids)) or 'none'}: correct the number.",
        )
    if options.codec == "dift":
        return DiftMaskCodec(ids, stride=stride)
    if options.codec == "crw":
        return CrwMaskCodec(ids)
    return MaskCodec(
        ids, encode=options.encode, upsample=options.upsample, stretch=options.stretch, vanish=options.vanish
    )


def _keypoint_codec(poses: list[Keypoints], settings: LabelSettings) -> LabelCodec[Keypoints]:
    first, options = poses[0], settings.keypoints
    for other in poses[1:]:
        if unknown := set(other.names) - set(first.names):
            raise UsageError(
                f"A later anchor has the joints {', '.join(sorted(unknown))}, the first has {', '.join(first.names)}.",
                "Name every joint in the first annotated frame; one that is not seen there is absent (no position).",
            )
    if options.codec == "jhmdb":
        return JhmdbCodec(first.names, first.skeleton)
    return KeypointCodec(first.names, first.skeleton, encode=options.encode, sigma=options.sigma, absent=options.absent)
