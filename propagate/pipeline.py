"""track(): reader -> extractor -> propagator -> codec, as a stream of predictions.

The only module that knows the whole program.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from propagate.anchors import anchors_by_index, check_anchors, check_label, not_read
from propagate.errors import InputError, OutOfMemoryError, PropagateWarning
from propagate.features import FeatureExtractor, build_extractor
from propagate.features.anchoring import anchored
from propagate.features.finer import BothMaps, both_maps
from propagate.features.finite import check_finite
from propagate.features.learned_prompts.attention_labels import AttentionLabels
from propagate.features.learned_prompts.label_reader import LabelReader, OnStep
from propagate.features.passes import Passes, largest_pass
from propagate.geometry import resize_frame, to_tensor, working_size
from propagate.labels import LabelCodec, codec_for, label_channels
from propagate.planning.budget import MemoryPlan, check_learning, plan_memory
from propagate.planning.estimate import BATCHES_AHEAD, LABELS_AHEAD
from propagate.planning.fitting import check_fit
from propagate.propagation.propagator import LabelPropagator
from propagate.settings import DEFAULT_PRESET, Settings, load_settings
from propagate.stages import ahead
from propagate.types import Frame, Label, LabelLike, Mask, Prediction, as_anchors
from propagate.video import frames_from_arrays, open_video

SplitMaps = Callable[[Float[Tensor, "c h w"]], tuple[Float[Tensor, "_ _ _"], ...]]


def track(
    frames: str | Path | Iterable[Frame] | Iterable[ndarray],
    anchors: LabelLike | Mapping[int, LabelLike],
    *,
    extractor: FeatureExtractor | None = None,
    settings: Settings | str | Path = DEFAULT_PRESET,
    plan: MemoryPlan | None = None,
) -> Iterator[Prediction]:
    """Carry the anchors' labels through the frames, one Prediction per frame, in order.

    Streams: while a prediction is decoded and used, the labels of the next frames are carried in a thread of their own,
    and the batch after them is read and resized in another; no more than `budget.LABELS_AHEAD` and `BATCHES_AHEAD`, so
    that memory does not grow with the length of the video. Both threads end with the last prediction, with an error,
    and where the iterator is closed or dropped before.

    A frame with an anchor is answered with the anchor itself, and with its prediction of what the anchor leaves open.
    How much is done at a time follows from `settings.max_memory`; where a GPU's memory runs out all the same, the
    network is given half as much, once, and there is a `SmallerPassWarning`. The predictions do not depend on either.

    Args:
        frames: the path of a video, opened as `settings.video` says, notes on it being `PropagateWarning`s; a reader of
            `open_video`, whose `info.notes` say how it is read; or any iterable of frames or of (H, W, 3) uint8 RGB
            arrays. All but the first are taken from it in another thread.
        anchors: the first frame's mask (or an array of ids, see `Mask`) or keypoints, or a mapping from frame index to
            one (all of one kind; keypoints whose names are among the first one's). The first frame must have one. A
            later one may annotate some of the objects or joints: those that it neither shows nor calls absent
            (`Mask.absent`; a joint without a position) keep their prediction in that frame.
        extractor: where the features come from; None: the one the settings name.
        settings: settings, the name of a preset or the path of a preset file.
        plan: how much is done at a time; None: what `plan_memory` finds where there is a `settings.max_memory`, else
            what is usual on the device.

    Raises:
        InputError: an anchor's size differs from its frame's, a joint lies outside the frame, no anchor shows anything,
            or the video cannot be read.
        UsageError: the first frame has no anchor, an anchor's frame is not read (known before the first frame for a
            reader and a sequence, after the last one for another iterable), or the settings do not fit.
        OutOfMemoryError: memory ran out, or `settings.max_memory` is too little.
    """
    if not isinstance(settings, Settings):
        settings = load_settings(settings)
    anchors = as_anchors(anchors)
    if isinstance(frames, str | Path):
        frames = open_video(frames, **settings.video.reading)
        for note in frames.info.notes:
            warnings.warn(note, PropagateWarning, stacklevel=2)
    check_anchors(anchors, frames)
    if extractor is None:
        with _memory_errors():
            extractor = build_extractor(settings.features.name, **settings.features.options)
    stream = iter(frames_from_arrays(frames))
    first = next(stream, None)
    if first is None:
        raise InputError("The video has no frames.", "Check --from-frame, --to-frame and the file.")
    by_index = anchors_by_index(anchors, first)
    labels = list(by_index.values())
    extractor = both_maps(extractor) if settings.propagation.finer else extractor
    codec = codec_for(labels, label_stride(extractor), settings.labels)
    check_fit(first.size, extractor, settings, masks=isinstance(labels[0], Mask))
    for index, label in by_index.items():
        check_label(label, index, first.size, settings)
    extractor = for_label(extractor, by_index[first.index], first, settings)
    if plan is None and settings.max_memory is not None:
        plan = plan_memory(extractor, first.size, settings, anchors=len(labels), labels=label_channels(labels))
    passes = largest_pass(extractor, settings.features.batch_size) if plan is None else plan.passes
    tile_scores = None if plan is None else plan.tile_scores
    propagator = _propagator(extractor, len(labels), tile_scores, settings)
    features = extract(chain([first], stream), Passes(extractor, passes), settings)
    return _track(features, by_index, maps_of(extractor), propagator, codec, settings)


def for_label(
    extractor: FeatureExtractor, label: Label, frame: Frame, settings: Settings, on_step: OnStep | None = None
) -> FeatureExtractor:
    """The extractor that knows the first frame's label, if it is a `LabelReader`; any other as it is.

    `track` does this where it was not done before.

    Args:
        extractor: of the run.
        label: of the frame.
        frame: the first one.
        settings: of the run.
        on_step: see `OnStep`.

    Raises:
        InputError: the label does not fit the frame, or there is nothing in it to learn, or see `LabelReader`.
        OutOfMemoryError: memory ran out, or `settings.max_memory` is too little for learning.
    """
    if not isinstance(extractor, LabelReader):
        return extractor
    check_label(label, frame.index, frame.size, settings)
    size = working_size(frame.size, multiple=extractor.multiple, **settings.video.sizing)
    with _memory_errors():
        if extractor.learning_steps(label):
            check_learning(extractor, frame.size, settings)
        return extractor.for_label(to_tensor(resize_frame(frame.pixels, size)), label, frame.size, on_step)


def _propagator(
    extractor: FeatureExtractor, anchors: int, tile_scores: int | None, settings: Settings
) -> LabelPropagator | AttentionLabels:
    options = settings.propagation
    if isinstance(extractor, LabelReader):
        return AttentionLabels(window=options.window, radius=options.radius)
    return LabelPropagator(**options.model_dump(), anchors=anchors, tile_scores=tile_scores)


def _track(
    features: Iterator[tuple[Frame, Float[Tensor, "c h w"]]],
    anchors: Mapping[int, Label],
    maps_of: SplitMaps,
    propagator: LabelPropagator | AttentionLabels,
    codec: LabelCodec[Any],
    settings: Settings,
) -> Iterator[Prediction]:
    carried = _carry(features, anchors, maps_of, propagator, codec)
    for soft, decode in ahead(carried, LABELS_AHEAD, initializer=_on_this_device()):
        with _memory_errors():
            prediction = decode()
        yield replace(prediction, soft=soft.cpu()) if settings.output.soft else prediction


def _carry(
    features: Iterator[tuple[Frame, Float[Tensor, "c h w"]]],
    anchors: Mapping[int, Label],
    maps_of: SplitMaps,
    propagator: LabelPropagator | AttentionLabels,
    codec: LabelCodec[Any],
) -> Iterator[tuple[Float[Tensor, "l h w"], Callable[[], Prediction]]]:
    """Every frame's soft labels, and how to make its prediction."""
    begun = False
    missing = set(anchors)
    for frame, packed in features:
        with _memory_errors(), torch.no_grad():
            label, (searched, *finer) = anchors.get(frame.index), maps_of(packed)
            if label is not None:
                grid = _grid(finer[0] if finer else searched)
                soft = codec.encode(label, frame.size, grid)
                if lost := codec.lost(label, soft):
                    told = f"Not carried from frame {frame.index}, having no cell of the grid: {', '.join(lost)}."
                    warnings.warn(told, PropagateWarning, stacklevel=2)
                soft = soft.to(packed.device)
                untouched = codec.untouched(label) if begun else ()
                if untouched:
                    soft = codec.complete(soft, propagator.predict(searched, *finer), untouched)
                soft = propagator.anchor(searched, soft, *finer)
                decode = partial(codec.given, label, frame, soft if untouched else None)
            else:
                soft = propagator.step(searched, *finer)
                decode = partial(codec.decode, soft, frame)
        begun = True
        missing.discard(frame.index)
        yield soft, decode
    if missing:  # known before the run, unless the frames came from an iterator or the video ended early
        raise not_read(sorted(missing))


def maps_of(extractor: FeatureExtractor) -> SplitMaps:
    """What takes a frame's features apart into the maps that a propagator wants: one, or with `propagation.finer` two.

    Args:
        extractor: of the run; with `propagation.finer` what `both_maps` makes of it.
    """
    return extractor.split if isinstance(extractor, BothMaps) else lambda features: (features,)


def label_stride(extractor: FeatureExtractor) -> int:
    """Pixels per cell of the grid on which labels are carried; see `maps_of`."""
    return extractor.finer_stride if isinstance(extractor, BothMaps) else extractor.stride


def with_frames(
    frames: Iterable[Frame], carry: Callable[[Iterator[Frame]], Iterator[Prediction]]
) -> Iterator[tuple[Frame, Prediction]]:
    """Every frame with what `carry` makes of it; of the frames only those that have no prediction yet are held.

    Args:
        frames: of one video.
        carry: gives one prediction per frame, in order, such as `track`.
    """
    read: deque[Frame] = deque()

    def remembered() -> Iterator[Frame]:
        for frame in frames:
            read.append(frame)
            yield frame

    for prediction in carry(remembered()):
        yield read.popleft(), prediction


def extract(
    frames: Iterable[Frame], extractor: FeatureExtractor, settings: Settings
) -> Iterator[tuple[Frame, Float[Tensor, "c h w"]]]:
    """Every frame with its features, in batches of `features.batch_size`, or of a pass where that takes more.

    While one batch is in work the next is read.

    What an extractor has to learn of a clip (the basis of a PCA) it learns from the first frame, which has the first
    anchor, alone; with later anchors it stays, or what is in memory could no longer be compared.
    """
    learned = False
    for batch, images in ahead(_batches(frames, extractor, settings), BATCHES_AHEAD):
        indices = [frame.index for frame in batch]
        with _memory_errors(), torch.no_grad():
            if not learned:
                extractor, learned = anchored(extractor, images[:1], indices[:1]), True
            features = check_finite(extractor(images, indices=indices), extractor, indices)
        yield from zip(batch, features, strict=True)


def _batches(
    frames: Iterable[Frame], extractor: FeatureExtractor, settings: Settings
) -> Iterator[tuple[list[Frame], Float[Tensor, "b 3 h w"]]]:
    stream, wanted = iter(frames), settings.features.batch_size
    wanted = max(wanted, extractor.size.frames) if isinstance(extractor, Passes) else wanted
    while batch := list(islice(stream, wanted)):
        size = working_size(batch[0].size, multiple=extractor.multiple, **settings.video.sizing)
        yield batch, torch.stack([to_tensor(resize_frame(frame.pixels, size)) for frame in batch])


def _on_this_device() -> Callable[[], None]:
    """For another thread: each has a current GPU of its own, which is where "cuda" without a number is."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return lambda: None
    return partial(torch.cuda.set_device, torch.cuda.current_device())


def _grid(features: Float[Tensor, "c h w"]) -> tuple[int, int]:
    _, height, width = features.shape
    return height, width


@contextmanager
def _memory_errors() -> Iterator[None]:
    remedy = "Lower video.short_side, features.batch_size or propagation.n_last with --set, or give a --max-memory."
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemoryError("Memory ran out.", remedy) from error
    except RuntimeError as error:
        if "allocate" in str(error) and "memory" in str(error):  # torch's CPU allocator has no class of its own
            raise OutOfMemoryError("Memory ran out.", remedy) from error
        raise
