"""One run of `segment` or `track`: from a video and a label to a folder of results."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from propagate.app.running import outputs as sinks
from propagate.app.running.inputs import LabelFile, ReferenceFile, find_label
from propagate.app.running.outputs import Outputs, Write, output_folder, protect_inputs, stamps
from propagate.app.running.record import input_record, settings_record, threads
from propagate.app.terminal.console import Terminal, own_warnings
from propagate.app.terminal.interrupt import Interrupted, stop_request
from propagate.app.terminal.progress import progress
from propagate.errors import UsageError
from propagate.feature_cache.cached_extractor import CachedExtractor
from propagate.feature_cache.store import FeatureCache
from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor, wanted_weights
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.files.atomic import atomic_path
from propagate.formats import write_run_record
from propagate.formats.output.folder import MASKS, SOFT
from propagate.labels import label_channels
from propagate.pipeline import for_label, track, with_frames
from propagate.planning.estimate import PREDICTIONS_AHEAD
from propagate.planning.fitting import check_fit
from propagate.planning.plan import MemoryPlan, plan_memory
from propagate.provenance import versions
from propagate.settings import ResolvedSettings, Settings
from propagate.stages import ahead
from propagate.types import Frame, FrameInfo, Label, Mask, Prediction
from propagate.video import VideoReader
from propagate.weights.locating import obtain


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
    """Propagate the first frame's label, or that of references, through the video and write the results.

    Args:
        command: name for the record.
        observers: further sinks of frames and predictions.

    Raises:
        PropagateError: see `pipeline.track`. Files of finished frames are complete.
        Interrupted: a signal arrived. The same holds.
    """
    settings, info = resolved.settings, reader.info
    files = [first] if isinstance(first, LabelFile) else [file.label for file in first]
    pictures = [] if isinstance(first, LabelFile) else [file.path for file in first]
    protect_inputs(output, info, [*pictures, *(file.path for file in files)], overlay=settings.output.overlay)
    with output_folder(output, terminal, overwrite=overwrite), _before_first_frame(output) as before:
        if cache is None:  # cached features may not need the weights
            obtain(wanted_weights(settings.features.name, **settings.features.options))
        with terminal.status(f"Loading {settings.features.name}"):
            extractor = _extractor(resolved, cache)
        confidence: Mapping[int, float] | Mapping[str, float] | None = None
        if isinstance(first, LabelFile):
            label, label_record = first.label, first.record
        else:
            found, label_record = find_label(first, reader, extractor, settings, terminal)
            label, confidence = found.label, found.confidence
        extractor = _learn_label(extractor, reader, label, output, settings, terminal)
        plan = _plan(extractor, info, label, settings)
        record = {
            "command": command,
            **settings_record(resolved),
            "versions": versions(),
            **input_record(info),
            "threads": threads(),
            "label": label_record,
            "device": str(getattr(extractor, "device", "unknown")),
            "memory": None if plan is None else plan.record,
            "cache": None if cache is None else {"folder": str(cache.folder.absolute()), "features": cache.counts},
        }
        terminal.detail(f"Features: {settings.features.name} on {record['device']}.")
        memory = "not estimated" if plan is None else f"about {plan.estimate}, with {plan} at a time"
        terminal.detail(f"Memory: {memory}.")

        def carried(frames: Iterator[Frame]) -> Iterator[Prediction]:
            predictions = track(frames, label, extractor=extractor, settings=settings, plan=plan)
            for number, prediction in enumerate(predictions):  # the first prediction is the label itself
                yield prediction if number or confidence is None else replace(prediction, confidence=confidence)

        outputs = Outputs([*_files(output, info, label, settings), *observers])
        with stop_request(terminal) as stop:
            with _recorded(output, record, outputs, terminal):
                with outputs, progress(terminal, command, info.count) as advance:
                    for frame, prediction in ahead(with_frames(reader, carried), PREDICTIONS_AHEAD):
                        outputs.write(frame, prediction)
                        advance()
                        if stop.requested:
                            stop.is_stopping = True
                            break
                if stop.requested and outputs.frames != info.count:
                    raise Interrupted(
                        f"{_frames(outputs.frames)} of {info.count} finished; their files in {output} are complete."
                    )
            if cache is not None:
                terminal.detail(
                    "Features: {found} from the cache, {computed} computed, {kept} cached.".format(**cache.counts)
                )
            _report(output, before, terminal)
            if stop.requested:
                raise Interrupted(f"All {_frames(outputs.frames)} are finished; the files in {output} are complete.")


@contextmanager
def _before_first_frame(output: Path) -> Iterator[Mapping[Path, tuple[int, int]]]:
    """Yield the stamps of older results; on an interrupt before the first frame, name the files already written."""
    before = stamps(output)
    try:
        yield before
    except Interrupted:
        raise
    except KeyboardInterrupt as interrupt:
        new = sorted(str(path) for path, stamp in stamps(output).items() if before.get(path) != stamp)
        left = f"written so far: {', '.join(new)}" if new else "nothing was written"
        raise Interrupted(f"Interrupted before the first frame was finished; {left}.") from interrupt


def _learn_label(
    extractor: FeatureExtractor, reader: VideoReader, label: Label, output: Path, settings: Settings, terminal: Terminal
) -> FeatureExtractor:
    """Train a `LabelReader` on the first frame, save the prompt in the output folder, and return the trained extractor.

    Returns any other extractor unchanged, without reading the video.
    """
    if not isinstance(extractor, LabelReader):
        return extractor
    check_fit((reader.info.height, reader.info.width), extractor, settings, masks=isinstance(label, Mask))
    frame = next(iter(reader), None)
    if frame is None:
        return extractor  # `track` raises the error
    if not (steps := extractor.learning_steps(label)):
        return for_label(extractor, label, frame, settings)
    with progress(terminal, "learning", steps, unit="steps") as advance:

        def on_step(name: str, loss: float, taken: int) -> None:
            advance.describe(f"learning {name}, loss {loss:.3g}")
            advance(taken)

        learned = for_label(extractor, label, frame, settings, on_step)
    assert isinstance(learned, LabelReader)
    with atomic_path(output / "prompt.safetensors") as temporary:
        learned.save(temporary)
    return learned


def _extractor(resolved: ResolvedSettings, cache: FeatureCache | None) -> FeatureExtractor:
    features = resolved.settings.features
    if cache is None:
        return build_extractor(features.name, **features.options)
    if features.name == "prompt_attention":
        raise UsageError(
            "--cache: features of prompt_attention depend on the first frame's label and are not cached.",
            "Leave it out; learned prompts are saved in the output folder, for --set features.embedding=FILE.",
        )
    return CachedExtractor(resolved, cache)


def _plan(extractor: FeatureExtractor, info: FrameInfo, label: Label, settings: Settings) -> MemoryPlan | None:
    """Return batch sizes and estimated memory.

    None without a limit if the estimate fails, for foreign extractors (it calls them with meta tensors, and an
    extractor that keeps one breaks), and for an extractor that is not built because its features are cached.
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
    if isinstance(label, Mask):
        yield sinks.mask_pictures(output / MASKS)
        yield sinks.confidence_table(output / "confidence.csv")
    else:
        size = (info.height, info.width)
        yield sinks.keypoints_file(output / "keypoints.json", size)
        yield sinks.keypoints_file(output / "keypoints.csv", size)
    if settings.output.soft:
        yield sinks.soft_maps(output / SOFT)
    if settings.output.overlay:
        rate = (info.rate or sinks.RATE_WITHOUT_CLOCK) / settings.video.stride
        yield sinks.overlay_video(output / "overlay.mp4", rate, settings.output.crf)


@contextmanager
def _recorded(output: Path, record: Mapping[str, Any], outputs: Outputs, terminal: Terminal) -> Iterator[None]:
    """Write run.json when the block ends, however it ends, if a frame is finished; then print warnings."""
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
        seconds, frames = time.monotonic() - start, outputs.frames
        if frames:
            outcome = {
                "status": status,
                "frames_done": frames,
                "seconds_per_frame": round(seconds / frames, 4),
                "notes": [*own_warnings(caught), *notes],
            }
            write_run_record(output, {**record, **outcome})
        terminal.caught(caught)
        if frames:
            if status == "failed":
                terminal.notes([f"{_frames(frames)} finished before the failure; see {output}.", *outputs.lost])
            terminal.result(f"{_frames(frames)} in {seconds:.1f} s ({frames / seconds:.3g} frames/s)")


def _report(output: Path, before: Mapping[Path, tuple[int, int]], terminal: Terminal) -> None:
    """Print the written files, and those of an older run."""
    after = stamps(output)
    left = sorted(path.relative_to(output) for path, stamp in after.items() if before.get(path) == stamp)
    new = sorted(path.relative_to(output) for path, stamp in after.items() if before.get(path) != stamp)
    for folder in (MASKS, SOFT):
        if pictures := [path for path in new if path.parent == Path(folder)]:
            terminal.result(f"  {output / pictures[0]} ... {pictures[-1].name}")
    for path in new:
        if path.parent == Path():
            terminal.result(f"  {output / path}")
    if left:
        names = ", ".join(map(str, left[:3])) + (" and others" if len(left) > 3 else "")
        terminal.note(f"{output} still holds {len(left)} files that this run did not write: {names}.")


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
