"""One run of `segment` or `track`: a video and a label in, a folder of results out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from propagate.app.running.inputs import LabelFile
from propagate.app.running.outputs import (
    Outputs,
    Write,
    confidence_table,
    keep_inputs,
    keypoints_file,
    mask_pictures,
    output_folder,
    overlay_video,
    soft_maps,
    stamps,
)
from propagate.app.running.prompts import learn_label, refuse_cache
from propagate.app.running.record import input_record, label_record, settings_record, threads
from propagate.app.running.references import ReferenceFile, find_label, references_record, with_confidence
from propagate.app.terminal.console import Terminal
from propagate.app.terminal.interrupt import Interrupt, Stopped
from propagate.app.terminal.progress import progress
from propagate.errors import PropagateWarning, UsageError
from propagate.feature_cache.cached_extractor import CachedExtractor
from propagate.feature_cache.store import FeatureCache
from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor, wanted_weights
from propagate.formats import write_run_record
from propagate.formats.output.folder import MASKS, SOFT
from propagate.labels import label_channels
from propagate.pipeline import track, with_frames
from propagate.planning.budget import MemoryPlan, plan_memory
from propagate.planning.estimate import PREDICTIONS_AHEAD
from propagate.planning.fitting import check_fit
from propagate.provenance import versions
from propagate.settings import ResolvedSettings, Settings
from propagate.stages import ahead
from propagate.types import Frame, FrameInfo, Label, Mask, Prediction
from propagate.video import VideoReader
from propagate.weights.locating import obtain

_RATE_WITHOUT_CLOCK = 25.0  # a folder of pictures is played at this rate


def carry(
    reader: VideoReader,
    first: LabelFile | Sequence[ReferenceFile],
    output: Path,
    resolved: ResolvedSettings,
    terminal: Terminal,
    *,
    command: str,
    overwrite: bool = False,
    cache: FeatureCache | None = None,
    observers: Sequence[AbstractContextManager[Write]] = (),
) -> None:
    """Carry the label through the video and write the results.

    Args:
        reader: the video.
        first: the label of its first frame, or pictures of the same kind of thing with labels of their own.
        output: folder of the results.
        resolved: settings and where they came from.
        terminal: where to print.
        command: its name, for the record.
        overwrite: accept a folder that holds something.
        cache: takes the features, and gives those that it has.
        observers: see every frame and its prediction too.

    Raises:
        PropagateError: see `pipeline.track` and the outputs. Frames finished before are complete files.
        Stopped: Ctrl-C. The same holds.
    """
    settings, info = resolved.settings, reader.info
    labels = (
        [first.path] if isinstance(first, LabelFile) else [p for file in first for p in (file.path, file.label_path)]
    )
    keep_inputs(output, info, labels, overlay=settings.output.overlay)
    with output_folder(output, terminal, overwrite=overwrite), _nothing_yet(output):
        before = stamps(output)
        if cache is None:  # kept features may do without
            obtain(wanted_weights(settings.features.name, **settings.features.options))
        with terminal.status(f"Loading {settings.features.name}"):
            extractor = _extractor(resolved, cache)
        label, confidence, label_told = _label(first, reader, extractor, settings, terminal)
        extractor = learn_label(extractor, reader, label, output, settings, terminal)
        plan = _plan(extractor, info, label, settings)
        record = {
            "command": command,
            **settings_record(resolved),
            "versions": versions(),
            **input_record(info),
            "threads": threads(),
            "label": label_told,
            "device": str(getattr(extractor, "device", "unknown")),
            "memory": None if plan is None else plan.record,
            "cache": None if cache is None else {"folder": str(cache.folder.absolute()), "features": cache.counts},
        }
        terminal.detail(f"Features: {settings.features.name} on {record['device']}.")
        told = "not estimated" if plan is None else f"about {plan.estimate}, with {plan} at a time"
        terminal.detail(f"Memory: {told}.")

        def carried(frames: Iterator[Frame]) -> Iterator[Prediction]:
            predictions = track(frames, label, extractor=extractor, settings=settings, plan=plan)
            return with_confidence(predictions, confidence)

        outputs = Outputs([*_files(output, info, label, settings), *observers])
        with Interrupt(terminal) as interrupt:
            with _recorded(output, record, outputs, terminal):
                with outputs, progress(terminal, command, info.count) as advance:
                    for frame, prediction in ahead(with_frames(reader, carried), PREDICTIONS_AHEAD):
                        outputs.write(frame, prediction)
                        advance()
                        if interrupt.requested:
                            interrupt.is_heeded = True
                            break
                if interrupt.requested and outputs.frames != info.count:
                    raise Stopped(
                        f"{_frames(outputs.frames)} of {info.count} finished; their files in {output} are complete."
                    )
            if cache is not None:
                terminal.detail(
                    "Features: {found} from the cache, {computed} computed, {kept} kept.".format(**cache.counts)
                )
            _report(output, before, terminal)
            if interrupt.requested:
                raise Stopped(f"All {_frames(outputs.frames)} are finished; the files in {output} are complete.")


@contextmanager
def _nothing_yet(output: Path) -> Iterator[None]:
    """Say of an interruption before the first frame what is there all the same, such as a prompt that was learned."""
    before = stamps(output)
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as interrupt:
        new = sorted(str(path) for path, stamp in stamps(output).items() if before.get(path) != stamp)
        left = f"written so far: {', '.join(new)}" if new else "nothing was written"
        raise Stopped(f"Interrupted before the first frame was finished; {left}.") from interrupt


def _label(
    first: LabelFile | Sequence[ReferenceFile],
    reader: VideoReader,
    extractor: FeatureExtractor,
    settings: Settings,
    terminal: Terminal,
) -> tuple[Label, Mapping[int, float] | Mapping[str, float] | None, dict[str, Any]]:
    """The first frame's label, the confidence with which it was found if it was, and the record of it."""
    if isinstance(first, LabelFile):
        return first.label, None, label_record(first.path, first.label, first.notes)
    found = find_label(first, reader, extractor, settings, terminal)
    return found.label, found.confidence, references_record(first, found)


def _extractor(resolved: ResolvedSettings, cache: FeatureCache | None) -> FeatureExtractor:
    features = resolved.settings.features
    if cache is not None:
        refuse_cache(features.name)
        return CachedExtractor(resolved, cache)
    return build_extractor(features.name, **features.options)


def _plan(extractor: FeatureExtractor, info: FrameInfo, label: Label, settings: Settings) -> MemoryPlan | None:
    """How much is done at a time, and what that takes.

    None where there is no limit and it cannot be told, for extractors of other packages where there is none (the
    estimate calls an extractor with tensors without content, and one that keeps such a tensor is spoilt by it), and for
    one that may not be needed beside its cache and was not built.

    Raises:
        UsageError, InputError: frames, extractor and settings do not fit together, or the limit cannot be kept to.
        OutOfMemoryError: the limit is too little.
    """
    size = info.height, info.width
    check_fit(size, extractor, settings, masks=isinstance(label, Mask))
    unbuilt = isinstance(extractor, CachedExtractor) and not extractor.is_built
    if settings.max_memory is None and (unbuilt or settings.features.name not in EXTRACTORS):
        return None
    try:
        return plan_memory(extractor, size, settings, labels=label_channels([label]))
    except UsageError:
        if settings.max_memory is not None:
            raise
        return None


def _files(output: Path, info: FrameInfo, label: Label, settings: Settings) -> Iterator[AbstractContextManager[Write]]:
    """The files of a run, by the kind of label and the settings of the output."""
    if isinstance(label, Mask):
        yield mask_pictures(output / MASKS)
        yield confidence_table(output / "confidence.csv")
    else:
        size = (info.height, info.width)
        yield keypoints_file(output / "keypoints.json", size)
        yield keypoints_file(output / "keypoints.csv", size)
    if settings.output.soft:
        yield soft_maps(output / SOFT)
    if settings.output.overlay:
        rate = (info.rate or _RATE_WITHOUT_CLOCK) / settings.video.stride
        yield overlay_video(output / "overlay.mp4", rate, settings.output.crf)


@contextmanager
def _recorded(output: Path, record: Mapping[str, Any], outputs: Outputs, terminal: Terminal) -> Iterator[None]:
    """Write run.json when the block ends, however it ends; nothing where not one frame was finished.

    It is written before anything is printed. Our own warnings (of video, memory, kernel, cache, overlay) become notes
    of it; other packages' are details.
    """
    status, notes, start = "finished", list[str](), time.monotonic()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield
    except KeyboardInterrupt as interrupt:
        status = "interrupted"
        notes.append(str(interrupt))
        raise
    except Exception as error:
        status = "failed"
        notes += [str(error), *outputs.lost]
        raise
    finally:
        seconds = time.monotonic() - start
        telling = [str(warning.message) for warning in caught if issubclass(warning.category, PropagateWarning)]
        if outputs.frames:
            outcome = {
                "status": status,
                "frames_done": outputs.frames,
                "seconds_per_frame": round(seconds / outputs.frames, 4),
                "notes": [*telling, *notes],
            }
            write_run_record(output, {**record, **outcome})
        terminal.notes(telling)
        for warning in caught:
            if not issubclass(warning.category, PropagateWarning):
                terminal.detail(f"{warning.category.__name__}: {warning.message}")
        if outputs.frames:
            if status == "failed":
                told = f"{_frames(outputs.frames)} finished before the failure; see {output}."
                terminal.notes([told, *outputs.lost])
            terminal.result(f"{_frames(outputs.frames)} in {seconds:.1f} s ({outputs.frames / seconds:.3g} frames/s)")


def _report(output: Path, before: Mapping[Path, tuple[int, int]], terminal: Terminal) -> None:
    """Say what was written, and what an older run left."""
    after = stamps(output)
    left = sorted(path.relative_to(output) for path, stamp in after.items() if before.get(path) == stamp)
    new = sorted(path.relative_to(output) for path, stamp in after.items() if before.get(path) != stamp)
    for folder in (MASKS, SOFT):
        pictures = [path for path in new if path.parent == Path(folder)]
        if pictures:
            terminal.result("  " + f"{output / pictures[0]} ... {pictures[-1].name}")
    for path in new:
        if path.parent == Path():
            terminal.result("  " + str(output / path))
    if left:
        names = ", ".join(map(str, left[:3])) + (" and others" if len(left) > 3 else "")
        terminal.note(f"{output} still holds {len(left)} files that this run did not write: {names}.")


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
