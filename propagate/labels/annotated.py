"""Annotated frames in mask codecs and in keypoint codecs.

An annotated frame may cover some of the objects or joints. Those that it neither shows nor calls absent are untouched:
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

SoftLabels = Float[Tensor, "l h w"]


class AnnotatedMasks(ABC):
    """The base class of mask codecs: object `ids[i]` has channel i + 1. Methods: see `LabelCodec`."""

    ids: tuple[int, ...]

    @abstractmethod
    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Return the prediction."""

    def check(self, label: Mask) -> None:
        """Raise an `InputError` for a mask that shows, or calls absent, an object that the codec does not carry."""
        unknown = sorted({*label.objects, *label.absent} - set(self.ids))
        if unknown:
            raise InputError(
                f"The mask has objects {unknown}; labels are carried for {list(self.ids)}.",
                "Give every anchor at the start, or build the codec for all ids.",
            )

    def untouched(self, label: Mask) -> tuple[int, ...]:
        """Return the channels of objects that the mask neither shows nor calls absent."""
        known = {*label.objects, *label.absent}
        return tuple(channel for channel, object_id in enumerate(self.ids, start=1) if object_id not in known)

    def lost(self, label: Mask, soft: SoftLabels) -> tuple[str, ...]:
        """Return the objects that the mask shows and its soft labels do not."""
        shown, found = set(label.objects), zip(self.ids, soft[1:].flatten(1).any(1).tolist(), strict=True)
        return tuple(f"object {object_id}" for object_id, carried in found if object_id in shown and not carried)

    def complete(self, given: SoftLabels, predicted: SoftLabels, untouched: tuple[int, ...]) -> SoftLabels:
        """Return the soft labels with the prediction for untouched objects where the mask has background."""
        return _complete(given, given[BACKGROUND] * predicted[list(untouched)].clamp(min=0), untouched)

    def given(self, label: Mask, frame: Frame, soft: SoftLabels | None = None) -> Prediction:
        """Return the mask as the prediction of its frame, with confidence 1 for the objects it shows.

        Untouched objects are decoded from `soft`, the result of `complete`, and appear where the mask has background.
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
    """The base class of keypoint codecs: joint j has channel j + 1. Methods: see `LabelCodec`."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]

    @abstractmethod
    def decode(self, soft: SoftLabels, frame: Frame) -> Prediction:
        """Return the prediction."""

    def positions(self, label: Keypoints) -> Float32[ndarray, "j 2"]:
        """Return the positions of the codec's joints; NaN for one that the label calls absent or does not name."""
        unknown = sorted(set(label.names) - set(self.names))
        if unknown:
            raise InputError(
                f"The keypoints have {', '.join(unknown)}; labels are carried for {', '.join(self.names)}.",
                "Name every joint in the first annotated frame; one that is not seen there is absent (no position).",
            )
        return self._spread(label, label.positions, np.nan)

    def untouched(self, label: Keypoints) -> tuple[int, ...]:
        """Return the channels of joints that the label does not name."""
        return tuple(channel for channel, name in enumerate(self.names, start=1) if name not in label.names)

    def lost(self, label: Keypoints, soft: SoftLabels) -> tuple[str, ...]:
        """Return the joints with a position in the label and none in its soft labels."""
        lost = np.isfinite(self.positions(label)).all(1) & ~soft[1:].flatten(1).any(1).cpu().numpy()
        return tuple(name for name, is_lost in zip(self.names, lost, strict=True) if is_lost)

    def complete(self, given: SoftLabels, predicted: SoftLabels, untouched: tuple[int, ...]) -> SoftLabels:
        """Return the soft labels with the prediction for untouched joints."""
        return _complete(given, predicted[list(untouched)], untouched)

    def given(self, label: Keypoints, frame: Frame, soft: SoftLabels | None = None) -> Prediction:
        """Return the joints as the prediction of their frame, with their own confidence.

        Untouched joints are decoded from `soft`, the result of `complete`; without it they are absent.
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
        spread = np.full((len(self.names), *values.shape[1:]), missing, np.float32)
        spread[[self.names.index(name) for name in label.names]] = values
        return spread


def _complete(given: SoftLabels, values: Float[Tensor, "u h w"], channels: tuple[int, ...]) -> SoftLabels:
    """Return soft labels with other values for some channels, which are taken from the background."""
    completed = given.clone()
    completed[list(channels)] = values
    completed[BACKGROUND] = (given[BACKGROUND] - completed[list(channels)].sum(0)).clamp(min=0)
    return completed
