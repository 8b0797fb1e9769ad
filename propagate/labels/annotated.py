"""Annotated frames, as every mask codec and every keypoint codec treats them.

An annotated frame may speak of some of the objects or joints. Those it neither shows nor calls absent are untouched:
they keep their prediction in that frame, and that prediction stays in memory with the annotation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from propagate.errors import InputError
from propagate.types import BACKGROUND, Frame, Keypoints, Mask, Prediction


class AnnotatedMasks(ABC):
    """What mask codecs share.

    Attributes:
        ids: the objects; object `ids[i]` has channel i + 1.
    """

    ids: tuple[int, ...]

    @abstractmethod
    def decode(self, soft: Float[Tensor, "l h w"], frame: Frame) -> Prediction:
        """See `LabelCodec`."""

    def check(self, label: Mask) -> None:
        """Refuse a mask that shows, or calls absent, an object the codec was not built for.

        Raises:
            InputError: it does.
        """
        unknown = sorted({*label.objects, *label.absent} - set(self.ids))
        if unknown:
            raise InputError(
                f"The mask has objects {unknown}; labels are carried for {list(self.ids)}.",
                "Give every anchor at the start, or build the codec for all ids.",
            )

    def untouched(self, label: Mask) -> tuple[int, ...]:
        """Channels of the objects that the mask neither shows nor calls absent."""
        known = {*label.objects, *label.absent}
        return tuple(channel for channel, object_id in enumerate(self.ids, start=1) if object_id not in known)

    def lost(self, label: Mask, soft: Float[Tensor, "l h w"]) -> tuple[str, ...]:
        """Objects that the mask shows and its soft labels do not."""
        shown, carried = set(label.objects), soft.flatten(1).any(1).tolist()[1:]
        found = zip(self.ids, carried, strict=True)
        return tuple(f"object {object_id}" for object_id, is_there in found if object_id in shown and not is_there)

    def complete(
        self, given: Float[Tensor, "l h w"], predicted: Float[Tensor, "l h w"], untouched: tuple[int, ...]
    ) -> Float[Tensor, "l h w"]:
        """An annotated frame's soft labels, with the prediction for untouched objects.

        Of each cell they get what the mask leaves to the background; void stays without a label.
        """
        completed = given.clone()
        channels = list(untouched)
        completed[channels] = given[BACKGROUND] * predicted[channels].clamp(min=0)
        completed[BACKGROUND] = (given[BACKGROUND] - completed[channels].sum(0)).clamp(min=0)
        return completed

    def given(self, label: Mask, frame: Frame, soft: Float[Tensor, "l h w"] | None = None) -> Prediction:
        """The annotated mask as the prediction of its frame: confidence 1 for the objects it shows.

        Args:
            label: the mask.
            frame: the frame.
            soft: what `complete` made of it. The untouched objects are decoded from it, and appear where the mask has
                background; None: they do not appear.
        """
        present = set(label.objects)
        confidence = {object_id: 1.0 if object_id in present else 0.0 for object_id in self.ids}
        if soft is None:
            return Prediction(frame.index, frame.time_s, name=frame.name, mask=label, confidence=confidence)
        decoded = self.decode(soft, frame)
        assert decoded.mask is not None
        others = [self.ids[channel - 1] for channel in self.untouched(label)]
        taken = (label.ids == BACKGROUND) & np.isin(decoded.mask.ids, others)
        mask = Mask(np.where(taken, decoded.mask.ids, label.ids), absent=label.absent)
        visible = set(mask.objects)
        certainty = cast("Mapping[int, float]", decoded.confidence)
        confidence |= {object_id: certainty[object_id] for object_id in others if object_id in visible}
        return replace(decoded, mask=mask, confidence=confidence)


class AnnotatedKeypoints(ABC):
    """What keypoint codecs share.

    Attributes:
        names: of the J joints; joint j has channel j + 1.
        skeleton: pairs of joint numbers.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]

    @abstractmethod
    def decode(self, soft: Float[Tensor, "l h w"], frame: Frame) -> Prediction:
        """See `LabelCodec`."""

    def positions(self, label: Keypoints) -> Float32[ndarray, "j 2"]:
        """Positions of all of the codec's joints; NaN where the label calls one absent or does not name it.

        Raises:
            InputError: the label names a joint that the codec does not carry.
        """
        unknown = sorted(set(label.names) - set(self.names))
        if unknown:
            raise InputError(
                f"The keypoints have {', '.join(unknown)}; labels are carried for {', '.join(self.names)}.",
                "Name every joint in the first annotated frame; one that is not seen there is absent (no position).",
            )
        return self._spread(label, label.positions, np.nan)

    def untouched(self, label: Keypoints) -> tuple[int, ...]:
        """Channels of the joints that the label does not name; one without a position is named, as absent."""
        return tuple(channel for channel, name in enumerate(self.names, start=1) if name not in label.names)

    def lost(self, label: Keypoints, soft: Float[Tensor, "l h w"]) -> tuple[str, ...]:
        """Joints that the label places and its soft labels do not."""
        placed, carried = np.isfinite(self.positions(label)).all(1), soft.flatten(1).any(1).tolist()[1:]
        return tuple(
            name
            for name, is_placed, is_there in zip(self.names, placed, carried, strict=True)
            if is_placed and not is_there
        )

    def complete(
        self, given: Float[Tensor, "l h w"], predicted: Float[Tensor, "l h w"], untouched: tuple[int, ...]
    ) -> Float[Tensor, "l h w"]:
        """An annotated frame's soft labels, with the prediction for untouched joints."""
        completed = given.clone()
        channels = list(untouched)
        completed[channels] = predicted[channels]
        completed[BACKGROUND] = (given[BACKGROUND] - completed[channels].sum(0)).clamp(min=0)
        return completed

    def given(self, label: Keypoints, frame: Frame, soft: Float[Tensor, "l h w"] | None = None) -> Prediction:
        """The annotated joints as the prediction of their frame, with the confidence they came with.

        Args:
            label: the joints.
            frame: the frame.
            soft: what `complete` made of it. The untouched joints are decoded from it; None: they are absent.
        """
        keypoints = label
        if label.names != self.names:
            positions, confidence = self.positions(label), self._spread(label, label.confidence, 0)
            if soft is not None:
                decoded = self.decode(soft, frame).keypoints
                assert decoded is not None
                joints = [channel - 1 for channel in self.untouched(label)]
                positions[joints], confidence[joints] = decoded.positions[joints], decoded.confidence[joints]
            keypoints = Keypoints(positions, self.names, self.skeleton, confidence=confidence)
        certainty = dict(zip(keypoints.names, keypoints.confidence.tolist(), strict=True))
        return Prediction(frame.index, frame.time_s, name=frame.name, keypoints=keypoints, confidence=certainty)

    def _spread(self, label: Keypoints, values: Float32[ndarray, "k *n"], missing: float) -> Float32[ndarray, "j *n"]:
        """Values of the label's joints in the codec's order."""
        spread = np.full((len(self.names), *values.shape[1:]), missing, np.float32)
        spread[[self.names.index(name) for name in label.names]] = values
        return spread
