"""One run of `segment` or `track`: a video and a label in, a folder of results out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from propagate.app.console import Terminal
from propagate.app.interrupt import Interrupt, Stopped
from propagate.app.outputs import (
    MASKS,
    SOFT,
    Outputs,
    Write,
    confidence_table,
    keypoints_file,
    mask_pictures,
    output_folder,
    overlay_video,
    soft_maps,
    stamps,
)
from propagate.app.progress import progress
from propagate.app.record import input_record, label_record, settings_record
from propagate.budget import MemoryPlan, plan_memory
from propagate.errors import UsageError
from propagate.features import EXTRACTORS, FeatureExtractor, build_extractor
from propagate.features.passes import SmallerPassWarning
from propagate.fitting import check_fit
from propagate.formats import read_keypoints_file, read_mask_file, write_run_record
from propagate.labels import label_channels
from propagate.pipeline import track, with_frames
from propagate.provenance import versions
from propagate.settings import ResolvedSettings, Settings
from propagate.types import FrameInfo, Label, Mask
from propagate.video import VideoEndsEarlyWarning, VideoReader, open_video

_RATE_WITHOUT_CLOCK = 25.0  # a folder of pictures is played at this rate


@dataclass(frozen=True)
class LabelFile:
    """A label, where it was read from, and how the file was understood."""

    path: Path
    label: Label
    notes: tuple[str, ...] = ()


def open_input(video: Path, settings: Settings, terminal: Terminal) -> VideoReader:
    """The video as its settings ask for it, its notes shown.

    Raises:
        InputError, UsageError: see `open_video`.
    """
    options = settings.video
    reader = open_video(
        video,
        reader=options.reader,
        strict=options.strict,
        from_frame=options.from_frame,
        to_frame=options.to_frame,
        stride=options.stride,
    )
    terminal.notes(reader.info.notes)
    return reader


def read_first_mask(path: Path, info: FrameInfo, terminal: Terminal, *, resize: bool) -> LabelFile:
    """The mask of the first frame, its notes shown.

    Raises:
        InputError: see `read_mask_file`.
    """
    file = read_mask_file(path, frame_size=(info.height, info.width), resize=resize)
    terminal.notes(file.notes)
    return LabelFile(path, file.mask, file.notes)


def read_first_keypoints(path: Path, info: FrameInfo, terminal: Terminal, *, frame: int) -> LabelFile:
    """The keypoints of the first frame that is read, its notes shown.

    Raises:
        InputError: see `read_keypoints_file`.
    """
    file = read_keypoints_file(path, frame_size=(info.height, info.width), frame=frame)
    terminal.notes(file.notes)
    return LabelFile(path, file.keypoints, file.notes)


def carry(
    reader: VideoReader,
    first: LabelFile,
    output: Path,
    resolved: ResolvedSettings,
    terminal: Terminal,
    *,
    command: str,
    overwrite: bool = False,
    observers: Sequence[AbstractContextManager[Write]] = (),
) -> None:
    """Carry the label through the video and write the results.

    Args:
        reader: the video.
        first: the label of its first frame.
        output: folder of the results.
        resolved: settings and where they came from.
        terminal: where to print.
        command: its name, for the record.
        overwrite: accept a folder that holds something.
        observers: see every frame and its prediction too.

    Raises:
        PropagateError: see `pipeline.track` and the outputs. Frames finished before are complete files.
        Stopped: Ctrl-C. The same holds.
    """
    settings, info = resolved.settings, reader.info
    with output_folder(output, overwrite=overwrite):
        before = stamps(output)
        with terminal.status(f"Loading {settings.features.name}"):
            extractor = build_extractor(settings.features.name, **settings.features.options)
            plan = _plan(extractor, info, first.label, settings)
        record = {
            "command": command,
            **settings_record(resolved),
            "versions": versions(),
            **input_record(info),
            "label": label_record(first.path, first.label, first.notes),
            "device": str(getattr(extractor, "device", "unknown")),
            "memory": None if plan is None else plan.record,
        }
        terminal.detail(f"Features: {settings.features.name} on {record['device']}.")
        told = "not estimated" if plan is None else f"about {plan.estimate}, with {plan} at a time"
        terminal.detail(f"Memory: {told}.")
        carried = partial(track, anchors=first.label, extractor=extractor, settings=settings, plan=plan)
        outputs = Outputs([*_files(output, info, first.label, settings), *observers])
        with _recorded(output, record, outputs, terminal):
            with Interrupt(terminal) as interrupt, outputs, progress(terminal, command, info.count) as advance:
                for frame, prediction in with_frames(reader, carried):
                    outputs.write(frame, prediction)
                    advance()
                    if interrupt.requested:
                        break
            if interrupt.requested and outputs.frames != info.count:
                raise Stopped(
                    f"{_frames(outputs.frames)} of {info.count} finished; their files in {output} are complete."
                )
        _report(output, before, terminal)


def _plan(extractor: FeatureExtractor, info: FrameInfo, label: Label, settings: Settings) -> MemoryPlan | None:
    """How much is done at a time, and what that takes.

    None where there is no limit and it cannot be told, and for extractors of other packages where there is none: the
    estimate calls an extractor with tensors without content, and one that keeps such a tensor is spoilt by it.

    Raises:
        UsageError, InputError: frames, extractor and settings do not fit together, or the limit cannot be kept to.
        OutOfMemoryError: the limit is too little.
    """
    size = info.height, info.width
    check_fit(size, extractor, settings, masks=isinstance(label, Mask))
    if settings.max_memory is None and settings.features.name not in EXTRACTORS:
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
    """Write run.json when the block ends, however it ends; nothing where not one frame was finished."""
    status, notes, start = "finished", list[str](), time.monotonic()
    try:
        with _warnings_as_notes(terminal, notes):
            yield
    except KeyboardInterrupt as interrupt:
        status = "interrupted"
        notes.append(str(interrupt))
        raise
    except Exception as error:
        status = "failed"
        notes += [str(error), *outputs.lost]
        if outputs.frames:
            terminal.notes([f"{_frames(outputs.frames)} finished before the failure; see {output}.", *outputs.lost])
        raise
    finally:
        if outputs.frames:
            seconds = time.monotonic() - start
            terminal.result(f"{_frames(outputs.frames)} in {seconds:.1f} s ({outputs.frames / seconds:.3g} frames/s)")
            outcome = {
                "status": status,
                "frames_done": outputs.frames,
                "seconds_per_frame": round(seconds / outputs.frames, 4),
                "notes": notes,
            }
            write_run_record(output, {**record, **outcome})


@contextmanager
def _warnings_as_notes(terminal: Terminal, notes: list[str]) -> Iterator[None]:
    """Turn our own warnings, which tell of the video and of the memory, into notes; other packages' are details."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        finally:
            for warning in caught:
                if issubclass(warning.category, VideoEndsEarlyWarning | SmallerPassWarning):
                    notes.append(str(warning.message))
                    terminal.note(str(warning.message))
                else:
                    terminal.detail(f"{warning.category.__name__}: {warning.message}")


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
