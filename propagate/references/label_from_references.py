"""Label a frame from references: other pictures of the same kind of object, with their own labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from propagate.errors import InputError, UsageError
from propagate.features import FeatureExtractor
from propagate.features.anchoring import AnchoredExtractor, anchored
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.features.passes import Passes, check_finite
from propagate.geometry import pixels_to_grid, resize_frame, to_tensor, working_size
from propagate.labels import KeypointCodec, LabelCodec, codec_for, label_channels
from propagate.labels.masks import objects_of
from propagate.planning.fitting import check_fit
from propagate.planning.plan import MemoryPlan, plan_memory
from propagate.propagation.window import grid_of
from propagate.references.crop import Piece, pieces
from propagate.references.search import TOP_K, FoundLabels, label_frame
from propagate.settings import PropagationSettings, Settings
from propagate.types import Frame, Keypoints, Label, LabelLike, Mask, as_label

# A mask below either is weak. With `compact`, 54 labels found from unrelated pictures had a cosine of 0.49 to 0.69 and
# a share of mutual matches of 0.21 to 0.76: all are weak. So are 9 of 17 labels of the same object; the other 8 have a
# J of 0.57 or more. Other features have other cosines.
LOW_SHARE, LOW_COSINE = 0.45, 0.68
# A joint below this confidence is weak. Of the 16 of `sample_videos/rendered`, rendered again scaled and turned, the 10
# above lay within 10 pixels of 640; of the 6 below, 2 lay 60 away and one was absent.
LOW_JOINT = 0.15
_SIGMA = 1.5  # in cells; 0.7, 1.5 and 2.5 brought 8, 10 and 9 of those 16 to within 12 pixels
_COPIES = 3  # of the references' features in memory: as computed, normalized, and as rows for the comparison


@dataclass(frozen=True, eq=False, init=False)
class Reference:
    """A picture, (H, W, 3) uint8 RGB, and its label: keypoints, or a mask of its size (or an array of ids)."""

    pixels: UInt8[ndarray, "h w 3"]
    label: Label

    def __init__(self, pixels: UInt8[ndarray, "h w 3"], label: LabelLike) -> None:
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "label", as_label(label))


@dataclass(frozen=True)
class Evidence:
    """The evidence for a label."""

    mutual: float  # share of an object's cells with a mutual match, or of a joint's label that arrived by such matches
    cosine: float  # mean over an object's mutual matches, or of a joint's cell

    @property
    def weak(self) -> bool:
        """Whether unrelated pictures can reach the same values."""
        return self.mutual < LOW_SHARE or self.cosine < LOW_COSINE


@dataclass(frozen=True, eq=False)
class FoundLabel:
    """The label found for a frame."""

    label: Label
    confidence: Mapping[int, float] | Mapping[str, float]  # per object id (cosine times share) or joint name (share)
    evidence: Mapping[int, Evidence] | Mapping[str, Evidence]  # per object id or joint name that was found
    notes: tuple[str, ...]  # sentences for the user


def label_from_references(
    frame: Frame, references: Sequence[Reference], extractor: FeatureExtractor, settings: Settings
) -> FoundLabel:
    """Label a frame from other pictures, at least one: all with masks, or all with keypoints of the same names.

    An object id, or a joint, means the same object in all of them. An extractor that fits a basis fits it on the frame
    and all references together, which `settings.max_memory` does not count; a note says so. Else the pictures go
    through the network one at a time, and the limit sets the size of steps. All pictures use the frame's index.

    Raises:
        InputError: no object or joint was found, or a mask's size differs from its picture's.
        UsageError: masks mixed with keypoints, joints that differ, or an extractor that learns from the first frame's
            own label; see also `check_fit`.
        OutOfMemoryError: `settings.max_memory` is too small.
    """
    if isinstance(extractor, LabelReader):
        raise UsageError(
            "These features are learned from the first frame's own label; a reference cannot stand for it.",
            "Label the first frame, or choose other features with --config.",
        )
    labels = [reference.label for reference in references]
    codec = _codec(labels, extractor.stride, settings)
    check_fit(frame.size, extractor, settings, masks=isinstance(labels[0], Mask))
    canvas = working_size(frame.size, multiple=extractor.multiple, **settings.video.sizing)
    shown = [(reference, piece) for reference in references for piece in _pieces(reference, canvas)]
    plan = _plan(frame, len(shown), label_channels(labels), extractor, settings)
    pictures = [resize_frame(frame.pixels, canvas), *(piece.pixels(reference.pixels) for reference, piece in shown)]
    features = _features(pictures, extractor if plan is None else Passes(extractor, plan.passes), frame.index)
    query, keys = features[0], features[1:]
    encoded = [_encode(reference.label, piece, codec, grid_of(query)) for reference, piece in shown]
    tile_scores = None if plan is None else plan.tile_scores
    found = label_frame(query, keys, torch.stack(encoded).to(query), tile_scores=tile_scores)
    if isinstance(codec, KeypointCodec):
        label = _keypoints_label(frame, codec, found)
    else:
        mask = codec.decode(found.soft, frame).mask
        assert mask is not None
        label = _mask_label(mask, objects_of(label for label in labels if isinstance(label, Mask)), found)
    if plan is not None and isinstance(extractor, AnchoredExtractor):
        note = (
            f"These features may fit a basis, on the frame and the references' {len(shown)} pictures together; "
            "max_memory does not count that."
        )
        return replace(label, notes=(*label.notes, note))
    return label


def _plan(
    frame: Frame, pictures: int, channels: int, extractor: FeatureExtractor, settings: Settings
) -> MemoryPlan | None:
    """The size of steps, with the pictures as anchors without a window; None without a limit."""
    if settings.max_memory is None:
        return None
    propagation = PropagationSettings(n_last=0, top_k=TOP_K, window="none")
    one_by_one = settings.features.model_copy(update={"batch_size": 1})
    alike = settings.model_copy(update={"propagation": propagation, "features": one_by_one})
    return plan_memory(extractor, frame.size, alike, anchors=_COPIES * pictures, labels=channels)


def _codec(labels: Sequence[Label], stride: int, settings: Settings) -> LabelCodec[Any]:
    """The codec of the settings, but wide spots for joints: their center is found from a few of their cells."""
    codec = codec_for(labels, stride, settings.labels)
    first = labels[0]
    return KeypointCodec(first.names, first.skeleton, sigma=_SIGMA) if isinstance(first, Keypoints) else codec


def _encode(label: Label, piece: Piece, codec: LabelCodec[Any], grid: tuple[int, int]) -> Float[Tensor, "l h w"]:
    if isinstance(label, Mask):
        return codec.encode(piece.mask(label), piece.canvas, grid)
    positions = piece.points(label.positions.astype(np.float64)).astype(np.float32)
    moved = Keypoints(positions, label.names, label.skeleton, label.confidence)
    return codec.encode(moved, piece.canvas, grid) * torch.from_numpy(piece.shows(grid))


def _pieces(reference: Reference, canvas: tuple[int, int]) -> list[Piece]:
    height, width, _ = reference.pixels.shape
    if isinstance(reference.label, Mask) and reference.label.size != (height, width):
        rows, columns = reference.label.size
        raise InputError(
            f"The mask is {columns}x{rows}, the reference is {width}x{height}.",
            "Export it at the reference's size, or scale it with --resize-mask.",
        )
    return pieces(reference.label, (height, width), canvas)


def _features(
    pictures: Sequence[UInt8[ndarray, "y x 3"]], extractor: FeatureExtractor, index: int
) -> Float[Tensor, "n c h w"]:
    images = torch.stack([to_tensor(picture) for picture in pictures])
    extractor = anchored(extractor, images, [index] * len(images))
    return torch.stack(
        [check_finite(extractor(image[None], indices=[index]), extractor, [index])[0].float() for image in images]
    )


def _mask_label(mask: Mask, ids: Sequence[int], found: FoundLabels) -> FoundLabel:
    owner = found.soft.argmax(0)
    evidence = {}
    for channel, object_id in enumerate(ids, start=1):
        cells = owner == channel
        matched = cells & found.mutual
        if object_id in mask.objects and matched.any():
            share, cosine = matched.sum() / cells.sum(), found.cosine[matched].mean().clamp(0, 1)
            evidence[object_id] = Evidence(float(share), float(cosine))
    if not evidence:
        raise _no_match("The mask matches nothing")
    ids_found = np.where(np.isin(mask.ids, list(evidence)), mask.ids, 0).astype(np.uint8)
    confidence = {i: evidence[i].mutual * evidence[i].cosine if i in evidence else 0.0 for i in ids}
    notes = [_note(f"object {i}", known) for i, known in evidence.items()]
    lost = [str(i) for i in ids if i not in evidence]
    if lost:
        notes.append(f"Object {', '.join(lost)} of the references was not found in the frame.")
    return FoundLabel(Mask(ids_found), confidence, evidence, tuple(notes))


def _note(what: str, evidence: Evidence) -> str:
    sentence = (
        f"The label of {what} comes from a reference: {evidence.mutual:.0%} of its cells match both ways, with a mean "
        f"cosine of {evidence.cosine:.2f}."
    )
    if evidence.weak:
        sentence += " That is weak: unrelated pictures can reach it. Check the overlay first."
    return sentence


def _keypoints_label(frame: Frame, codec: KeypointCodec, found: FoundLabels) -> FoundLabel:
    prediction = codec.decode(found.voted, frame)
    keypoints = prediction.keypoints
    assert keypoints is not None
    present = np.flatnonzero(keypoints.present)
    if len(present) == 0:
        raise _no_match("Not one joint matches anything")
    grid = grid_of(found.cosine)
    cells = pixels_to_grid(keypoints.positions[present].astype(np.float64), frame.size, grid)
    columns, rows = (np.clip(np.round(cells), 0, np.array(grid)[::-1] - 1)).astype(int).T
    cosines = found.cosine.cpu().numpy()[rows, columns]
    evidence = {
        keypoints.names[joint]: Evidence(float(keypoints.confidence[joint]), float(np.clip(cosine, 0, 1)))
        for joint, cosine in zip(present.tolist(), cosines, strict=True)
    }
    confidence = dict(zip(keypoints.names, keypoints.confidence.tolist(), strict=True))
    return FoundLabel(keypoints, confidence, evidence, _joint_notes(keypoints, evidence))


def _joint_notes(label: Keypoints, evidence: Mapping[str, Evidence]) -> tuple[str, ...]:
    mean = float(np.mean([known.mutual for known in evidence.values()]))
    cosine = float(np.mean([known.cosine for known in evidence.values()]))
    notes = [
        f"The joints come from a reference: of each, {mean:.0%} of its label arrived on average, with a mean cosine of "
        f"{cosine:.2f}."
    ]
    weak = [name for name, known in evidence.items() if known.mutual < LOW_JOINT]
    if weak:
        notes.append(f"Weak, and as likely wrong as right: {', '.join(weak)}. Check the overlay first.")
    lost = [name for name in label.names if name not in evidence]
    if lost:
        notes.append(f"Absent in the references, or not found: {', '.join(lost)}.")
    return tuple(notes)


def _no_match(problem: str) -> InputError:
    return InputError(
        f"{problem} in the first frame: no cell of it and of the references match both ways.",
        "Choose a reference that shows the object from the same side and about as large, or features that recognize "
        "kinds of objects (dift_sd_semantic, dinov2_davis); or label the first frame itself.",
    )
