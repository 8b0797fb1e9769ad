"""track(): reader -> extractor -> propagator -> codec, as a stream. The only module that knows all four."""

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
from propagate.features.learned_prompts.attention_labels import AttentionLabels
from propagate.features.learned_prompts.label_reader import LabelReader, OnStep
from propagate.features.passes import Passes, check_finite, largest_pass
from propagate.geometry import resize_frame, to_tensor, working_size
from propagate.labels import LabelCodec, codec_for, label_channels
from propagate.planning.estimate import BATCHES_AHEAD, LABELS_AHEAD
from propagate.planning.fitting import check_fit
from propagate.planning.plan import MemoryPlan, check_learning, plan_memory
from propagate.propagation.propagator import LabelPropagator
from propagate.propagation.window import grid_of
from propagate.settings import DEFAULT_PRESET, Settings, load_settings
from propagate.stages import ahead
from propagate.types import Frame, Label, LabelLike, Mask, Prediction, as_anchors
from propagate.video import frames_from_arrays, open_video

SplitMaps = Callable[[Float[Tensor, "c h w"]], tuple[Float[Tensor, "_ _ _"], ...]]
_Features = Iterator[tuple[Frame, Float[Tensor, "c h w"]]]
_Carried = Iterator[tuple[Float[Tensor, "l h w"], Callable[[], Prediction]]]


def track(
    frames: str | Path | Iterable[Frame] | Iterable[ndarray],
    anchors: LabelLike | Mapping[int, LabelLike],
    *,
    extractor: FeatureExtractor | None = None,
    settings: Settings | str | Path = DEFAULT_PRESET,
    plan: MemoryPlan | None = None,
) -> Iterator[Prediction]:
    """Carry the anchors' labels through the frames, one Prediction per frame, in order.

    Streams: while a prediction is decoded and used, one thread carries the labels of the next frames and another reads
    and resizes the batch after them. They run ahead by `LABELS_AHEAD` and `BATCHES_AHEAD` of `planning.estimate`, so
    memory does not grow with the length of the video. Both threads end with the last prediction, with an error, or when
    the iterator is closed or dropped.

    The prediction of an annotated frame is the anchor, completed by a prediction of what the anchor leaves open.
    `settings.max_memory` sets the size of steps; if a GPU still runs out of memory, the network's batches are halved
    once, with a `SmallerPassWarning`. The predictions do not depend on either.

    Args:
        frames: path of a video, opened according to `settings.video`, with its notes as `PropagateWarning`s; a reader
            from `open_video`; or any iterable of frames or of (H, W, 3) uint8 RGB arrays. All frames but the first are
            read in another thread.
        anchors: mask (or array of ids, see `Mask`) or keypoints of the first frame, or a mapping from frame index to
            one (all of one kind; keypoints whose names are among the first one's). The first frame must have one. A
            later one may annotate some of the objects or joints: those that it neither shows nor calls absent
            (`Mask.absent`; a joint without a position) keep their prediction in that frame.
        extractor: computes the features; None: the extractor of the settings.
        settings: settings, the name of a preset or the path of a preset file.
        plan: size of steps; None: that of `plan_memory` if there is a `settings.max_memory`, else the device's usual.

    Raises:
        InputError: an anchor's size differs from its frame's, a joint lies outside the frame, no anchor shows anything,
            or the video cannot be read.
        UsageError: the first frame has no anchor, an anchor's frame is not read (known before the first frame for a
            reader and a sequence, after the last one for another iterable), or the settings do not fit.
        OutOfMemoryError: memory ran out, or `settings.max_memory` is too small.
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
    propagator = propagator_for(extractor, settings, anchors=len(labels), tile_scores=tile_scores)
    features = extract(chain([first], stream), Passes(extractor, passes), settings)
    return _decode(_carry(features, by_index, maps_of(extractor), propagator, codec), settings)


def for_label(
    extractor: FeatureExtractor, label: Label, frame: Frame, settings: Settings, on_step: OnStep | None = None
) -> FeatureExtractor:
    """Teach a `LabelReader` the first frame's label; return any other extractor unchanged. `track` calls this, too.

    Raises:
        InputError: the label does not fit the frame, contains nothing to learn, or see `LabelReader`.
        OutOfMemoryError: memory ran out, or `settings.max_memory` is too small for learning.
    """
    if not isinstance(extractor, LabelReader):
        return extractor
    check_label(label, frame.index, frame.size, settings)
    size = working_size(frame.size, multiple=extractor.multiple, **settings.video.sizing)
    with _memory_errors():
        if settings.max_memory is not None and extractor.learning_steps(label):
            check_learning(partial(extractor.dry_run_step, size), frame.size, settings.max_memory)
        return extractor.for_label(to_tensor(resize_frame(frame.pixels, size)), label, frame.size, on_step)


def propagator_for(
    extractor: FeatureExtractor, settings: Settings, *, anchors: int = 1, tile_scores: int | None = None
) -> LabelPropagator | AttentionLabels:
    """Build the propagator for an extractor's features, which for a `LabelReader` are the labels already."""
    options = settings.propagation
    if isinstance(extractor, LabelReader):
        return AttentionLabels(window=options.window, radius=options.radius)
    return LabelPropagator(**options.model_dump(), anchors=anchors, tile_scores=tile_scores)


def _decode(carried: _Carried, settings: Settings) -> Iterator[Prediction]:
    for soft, decode in ahead(carried, LABELS_AHEAD, initializer=_on_this_device()):
        with _memory_errors():
            prediction = decode()
        yield replace(prediction, soft=soft.cpu()) if settings.output.soft else prediction


def _carry(
    features: _Features,
    anchors: Mapping[int, Label],
    maps_of: SplitMaps,
    propagator: LabelPropagator | AttentionLabels,
    codec: LabelCodec[Any],
) -> _Carried:
    """Yield every frame's soft labels, and a function that decodes its prediction."""
    missing = set(anchors)
    for frame, packed in features:
        with _memory_errors(), torch.no_grad():
            label, (searched, *finer) = anchors.get(frame.index), maps_of(packed)
            if label is not None:
                soft = codec.encode(label, frame.size, grid_of((searched, *finer)[-1]))
                if lost := codec.lost(label, soft):
                    note = f"Not carried from frame {frame.index}, having no cell of the grid: {', '.join(lost)}."
                    warnings.warn(note, PropagateWarning, stacklevel=2)
                soft = soft.to(packed.device)
                untouched = codec.untouched(label) if len(missing) < len(anchors) else ()  # never in the first
                if untouched:
                    soft = codec.complete(soft, propagator.predict(searched, *finer), untouched)
                soft = propagator.anchor(searched, soft, *finer)
                decode = partial(codec.given, label, frame, soft if untouched else None)
            else:
                soft = propagator.step(searched, *finer)
                decode = partial(codec.decode, soft, frame)
        missing.discard(frame.index)
        yield soft, decode
    if missing:  # known before the run, unless the frames came from an iterator or the video ended early
        raise not_read(sorted(missing))


def maps_of(extractor: FeatureExtractor) -> SplitMaps:
    """Return a function that unpacks a frame's features into the propagator's maps: one, or two of `both_maps`."""
    return extractor.split if isinstance(extractor, BothMaps) else lambda features: (features,)


def label_stride(extractor: FeatureExtractor) -> int:
    """Return the pixels per cell of the labels' grid."""
    return extractor.finer_stride if isinstance(extractor, BothMaps) else extractor.stride


def with_frames(
    frames: Iterable[Frame], carry: Callable[[Iterator[Frame]], Iterator[Prediction]]
) -> Iterator[tuple[Frame, Prediction]]:
    """Yield every frame with its prediction by `carry`, such as `track`. Holds only frames without a prediction."""
    waiting: deque[Frame] = deque()

    def buffered() -> Iterator[Frame]:
        for frame in frames:
            waiting.append(frame)
            yield frame

    for prediction in carry(buffered()):
        yield waiting.popleft(), prediction


def extract(frames: Iterable[Frame], extractor: FeatureExtractor, settings: Settings) -> _Features:
    """Yield every frame with its features, in batches of `features.batch_size`, or of a pass if that is larger.

    The next batch is read during the computation of this one. An extractor that fits a clip (the basis of a PCA) fits
    the first frame alone; later anchors do not change it, or features in memory could no longer be compared.
    """
    fitted = False
    for batch, images in ahead(_batches(frames, extractor, settings), BATCHES_AHEAD):
        indices = [frame.index for frame in batch]
        with _memory_errors(), torch.no_grad():
            if not fitted:
                extractor, fitted = anchored(extractor, images[:1], indices[:1]), True
            features = check_finite(extractor(images, indices=indices), extractor, indices)
        yield from zip(batch, features, strict=True)


def _batches(
    frames: Iterable[Frame], extractor: FeatureExtractor, settings: Settings
) -> Iterator[tuple[list[Frame], Float[Tensor, "b 3 h w"]]]:
    stream, count = iter(frames), settings.features.batch_size
    count = max(count, extractor.size.frames) if isinstance(extractor, Passes) else count
    while batch := list(islice(stream, count)):
        size = working_size(batch[0].size, multiple=extractor.multiple, **settings.video.sizing)
        yield batch, torch.stack([to_tensor(resize_frame(frame.pixels, size)) for frame in batch])


def _on_this_device() -> Callable[[], None]:
    """Return an initializer for another thread: each has its own current GPU, which "cuda" without a number means."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return lambda: None
    return partial(torch.cuda.set_device, torch.cuda.current_device())


@contextmanager
def _memory_errors() -> Iterator[None]:
    remedy = "Lower video.short_side, features.batch_size or propagation.n_last with --set, or give a --max-memory."
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        by_cpu_allocator = "allocate" in str(error) and "memory" in str(error)  # of torch, which has no class for it
        if by_cpu_allocator or isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise OutOfMemoryError("Memory ran out.", remedy) from error
        raise
