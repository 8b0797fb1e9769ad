"""Time the stages of a run on the same inputs, and the whole run end to end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import torch

from propagate.benchmarks.speed.timing import Timing, timed
from propagate.benchmarks.speed.transfer_step import Transfer
from propagate.errors import UsageError
from propagate.features import FeatureExtractor
from propagate.features.finer import both_maps
from propagate.features.learned_prompts.attention_labels import AttentionLabels
from propagate.features.passes import Passes, largest_pass
from propagate.labels import codec_for
from propagate.pipeline import extract, label_stride, maps_of, propagator_for, track, with_frames
from propagate.propagation.affinity import normalize
from propagate.propagation.window import Rule, Window
from propagate.settings import Settings
from propagate.types import Frame, Mask, Prediction
from propagate.video import VideoReader

DECODE, FEATURES, TRANSFER, LABELS, WRITE = STAGES = ("decode", "features", "transfer", "decode labels", "write")
_HELD = 24  # frames whose features and labels are inputs of later stages


class Sink(Protocol):
    """Writer of results."""

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Write a frame's files."""


OpenSink = Callable[[Path], AbstractContextManager[Sink]]


@dataclass(frozen=True)
class Subject:
    """An extractor to measure, with its settings."""

    name: str
    settings: Settings
    extractor: FeatureExtractor


def device_of(extractor: FeatureExtractor) -> torch.device | None:
    """Return the device of an extractor; None where it has no such attribute."""
    device = getattr(extractor, "device", None)
    return torch.device(device) if device is not None else None


def end_to_end(reader: Iterable[Frame], label: Mask, subject: Subject, folder: Path, open_sink: OpenSink) -> Timing:
    """Carry the label of the first frame through the clip once, and write all files into an empty folder."""
    timings, frames = list[Timing](), 0
    carried = partial(track, anchors=label, extractor=subject.extractor, settings=subject.settings)
    with timed(1, device_of(subject.extractor), timings), open_sink(folder) as sink:
        for frame, prediction in with_frames(reader, carried):
            sink.write(frame, prediction)
            frames += 1
    return Timing(timings[0].wall / frames, timings[0].cpu / frames)


class Stages:
    """The stages of one subject on one clip of two frames or more, which can be timed repeatedly.

    The inputs of each stage are computed in advance from the first 24 frames. The memory bank is full, as in the middle
    of a long clip.
    """

    @torch.no_grad()
    def __init__(self, reader: VideoReader, label: Mask, subject: Subject) -> None:
        self._reader, self._subject = reader, subject
        self._device = device_of(subject.extractor)
        settings, extractor = subject.settings, subject.extractor
        extractor = both_maps(extractor) if settings.propagation.finer else extractor
        self._frames = list(islice(iter(reader), _HELD))
        self._passes = Passes(extractor, largest_pass(extractor, settings.features.batch_size))
        split = maps_of(extractor)
        features = [split(features) for _, features in extract(self._frames, self._passes, settings)]
        codec = codec_for([label], label_stride(extractor), settings.labels)
        self._codec: Any = codec
        options = settings.propagation
        self._propagator = propagator_for(extractor, settings)
        rows, columns = features[0][-1].shape[1:]
        soft = codec.encode(label, self._frames[0].size, (rows, columns)).to(features[0][0].device)
        searched, *finer = features[0]
        self._propagator.anchor(searched, soft, *finer)
        shown, self._queries = self._frames[1:], features[1:]
        for query in islice(cycle(self._queries), options.n_last + options.n_older * options.older_every):
            self._propagator.step(*query)
        self._softs = [
            (frame, self._propagator.step(*query)) for frame, query in zip(shown, self._queries, strict=True)
        ]
        self._predictions = [(frame, codec.decode(soft, frame)) for frame, soft in self._softs]

    @torch.no_grad()
    def run(self, folder: Path, open_sink: OpenSink) -> dict[str, Timing]:
        """Time each stage once, and write files into an empty folder."""
        timings: list[Timing] = []
        count = sum(1 for _ in self._reader) if self._reader.info.count is None else self._reader.info.count
        with timed(count, None, timings):
            deque(iter(self._reader), maxlen=0)
        with timed(len(self._frames), self._device, timings):
            deque(extract(self._frames, self._passes, self._subject.settings), maxlen=0)
        with timed(len(self._queries), self._device, timings):
            for query in self._queries:
                self._propagator.step(*query)
        with timed(len(self._softs), self._device, timings):
            for frame, soft in self._softs:
                self._codec.decode(soft, frame)
        with timed(len(self._predictions), None, timings), open_sink(folder) as sink:
            for frame, prediction in self._predictions:
                sink.write(frame, prediction)
        return dict(zip(STAGES, timings, strict=True))

    @property
    def transfer(self) -> Transfer:
        """One transfer step of a query that is not in the full memory.

        Raises:
            UsageError: the features are the labels, or `propagation.finer` is set.
        """
        if isinstance(self._propagator, AttentionLabels):
            raise UsageError(
                f"--dense: {self._subject.name} reads labels from each frame and transfers none.", "Remove it."
            )
        if self._propagator.finer_memory is not None:
            raise UsageError(
                f"--dense: {self._subject.name} transfers from coarse to fine, which has no dense form.",
                "Remove it, or set propagation.finer=false.",
            )
        propagation = self._subject.settings.propagation
        keys, labels = self._propagator.memory.context()
        exempt = tuple(range(self._propagator.memory.anchors)) if propagation.exempt_anchors else ()
        window = None if propagation.window == "none" else Window(propagation.window, propagation.radius, exempt)
        rule = Rule(window, propagation.top_k, propagation.temperature, propagation.ties)
        return Transfer(normalize(self._queries[0][0]), keys, labels, rule)
