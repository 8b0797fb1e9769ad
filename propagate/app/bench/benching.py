"""What `propagate bench` does: every configuration is loaded, warmed up and then timed, run by run in turns."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from propagate.app.bench.report import Measured, as_table, as_text, dense_table
from propagate.app.running.outputs import Outputs, confidence_table, mask_pictures, overlay_video
from propagate.app.running.own_process import in_own_process
from propagate.app.terminal.console import Terminal
from propagate.app.terminal.progress import Advance, progress
from propagate.benchmarks.running.resources import machine, peak_device_memory, peak_memory, reset_peak_memory
from propagate.benchmarks.speed.generated_clip import generate_clip, shapes_mask
from propagate.benchmarks.speed.stage_times import STAGES, OpenSink, Stages, Subject, end_to_end
from propagate.benchmarks.speed.timing import Timing
from propagate.benchmarks.speed.transfer_step import DenseComparison, Shape, Transfer, Way, against_dense, memory_of
from propagate.errors import UsageError
from propagate.features import build_extractor, wanted_weights
from propagate.formats import read_mask_file
from propagate.formats.output.folder import MASKS
from propagate.pipeline import for_label
from propagate.planning.fitting import check_fit
from propagate.propagation.window import Rule
from propagate.settings import ResolvedSettings, Settings
from propagate.types import Mask
from propagate.video import VideoReader, open_video
from propagate.weights.locating import obtain

_SIZE = (480, 854)
_SIZE_TEXT = re.compile(r"(\d{2,5})x(\d{2,5})")
_OBJECTS = 1
_RATE = 25.0
_WARM_UP = 3  # frames: what is compiled and loaded on the way is there after the second


@dataclass(frozen=True)
class Choices:
    """What the user asked for.

    Attributes:
        video: the clip; None: a generated one.
        mask: of its first frame; None: ellipses.
        frames: how many.
        size: (height, width) of a generated clip.
        objects: where no mask is given; None: 1.
        settings: name and settings of each configuration.
        repeat: runs of each.
        dense: time the dense formulation too.
    """

    video: Path | None
    mask: Path | None
    frames: int
    size: tuple[int, int]
    objects: int | None
    settings: tuple[tuple[str, ResolvedSettings], ...]
    repeat: int
    dense: bool


@dataclass(frozen=True)
class Clip:
    """What all configurations are timed on.

    Attributes:
        path: of the video.
        frames: the first so many are read.
        label: of the first of them.
        origin: for people: the path, or that it was generated.
        leave_out: the mask's file, if that lies among the pictures of a folder.
    """

    path: Path
    frames: int
    label: Mask
    origin: str
    leave_out: tuple[Path, ...] = ()

    def reader(self, settings: Settings, most: int | None = None) -> VideoReader:
        """The clip, opened as the settings say; of its frames at most so many."""
        frames = self.frames if most is None else min(most, self.frames)
        return open_video(self.path, reader=settings.video.reader, to_frame=frames, leave_out=self.leave_out)


def size_of(text: str | None, video: Path | None) -> tuple[int, int]:
    """(height, width) of "854x480".

    Raises:
        UsageError: it is no size, or there is a clip that has its own.
    """
    if text is None:
        return _SIZE
    if video is not None:
        raise UsageError(f"--size {text}: {video} has a size of its own.", "Leave it out, or set video.short_side.")
    parts = _SIZE_TEXT.fullmatch(text)
    if parts is None:
        raise UsageError(f"--size {text} is no size.", "Give width and height, such as 854x480.")
    return int(parts[2]), int(parts[1])


def run_bench(choices: Choices, terminal: Terminal, *, as_json: bool) -> None:
    """Measure, and print a table or JSON.

    Raises:
        PropagateError: the clip, the mask or the settings do not fit, or a model cannot be loaded.
    """
    features = [resolved.settings.features for _, resolved in choices.settings]
    obtain(wanted for one in features for wanted in wanted_weights(one.name, **one.options))
    with tempfile.TemporaryDirectory(prefix="propagate-bench-") as name:
        folder = Path(name)
        with terminal.status("Preparing the clip"):
            clip = _clip(choices, folder)
        passes = len(choices.settings) * (1 + 2 * choices.repeat)
        with progress(terminal, "starting", passes * clip.frames) as advance:
            measured = _measure(choices, clip, folder, terminal, advance)
    if as_json:
        terminal.answer(as_text(measured, machine(), clip.origin, clip.frames, clip.label, choices.repeat))
        return
    size = "x".join(map(str, reversed(clip.label.size)))
    objects = len(clip.label.objects)
    terminal.heading(f"{clip.origin}: {clip.frames} frames of {size}, {objects} object{'' if objects == 1 else 's'}")
    terminal.answer(as_table(measured))
    if choices.dense:
        terminal.answer(dense_table(measured))
    here = machine()
    terminal.note(
        f"Median of {choices.repeat} runs after a warm-up, milliseconds per frame. {here['processor']}, "
        f"{here['threads']} of {here['cores']} threads, load {here['load_average']}."
    )


def _clip(choices: Choices, folder: Path) -> Clip:
    objects = choices.objects or _OBJECTS
    if choices.video is None:
        if choices.mask is not None:
            raise UsageError("--mask belongs to a VIDEO.", "Give the video too, or --objects for a generated one.")
        path = folder / "clip.mp4"
        label = generate_clip(path, frames=choices.frames, size=choices.size, objects=objects)
        return Clip(path, choices.frames, label, "generated clip")
    if choices.mask is not None and choices.objects is not None:
        raise UsageError(f"--objects {objects}: the mask has its own.", "Give one of them.")
    leave_out = () if choices.mask is None else (choices.mask,)
    info = open_video(choices.video, leave_out=leave_out).info
    if info.count == 1:
        raise UsageError(f"{choices.video} has a single frame, to which nothing is carried.", "Give two or more.")
    frames = choices.frames if info.count is None else min(choices.frames, info.count)
    size = info.height, info.width
    label = shapes_mask(size, objects) if choices.mask is None else read_mask_file(choices.mask, frame_size=size).mask
    return Clip(choices.video, frames, label, str(choices.video), leave_out)


def _measure(choices: Choices, clip: Clip, folder: Path, terminal: Terminal, advance: Advance) -> tuple[Measured, ...]:
    resolved = dict(
        zip(_distinct([name for name, _ in choices.settings]), [r for _, r in choices.settings], strict=True)
    )
    peaks = {}
    for name, one in resolved.items():
        advance.describe(f"{name}: memory")
        work = partial(_peaks, clip, name, one.settings, _new(folder))
        peaks[name] = in_own_process(work, _ignore)
        advance(clip.frames)
    subjects = {}
    for name, one in resolved.items():
        advance.describe(f"{name}: warm-up")
        subjects[name] = _subject(name, one.settings, clip)
        short = clip.reader(one.settings, _WARM_UP)
        end_to_end(short, clip.label, subjects[name], _new(folder), segment_files(one.settings))
    whole: dict[str, list[Timing]] = {name: [] for name in resolved}
    stages: dict[str, dict[str, list[Timing]]] = {name: {stage: [] for stage in STAGES} for name in resolved}
    for number in range(choices.repeat):
        for name, subject in subjects.items():
            advance.describe(f"{name}: end to end ({number + 1}/{choices.repeat})")
            reader = clip.reader(subject.settings)
            timing = end_to_end(reader, clip.label, subject, _new(folder), segment_files(subject.settings))
            whole[name].append(timing)
            advance(clip.frames)
    parts = {name: Stages(clip.reader(one.settings), clip.label, one) for name, one in subjects.items()}
    for number in range(choices.repeat):
        for name, subject in subjects.items():
            advance.describe(f"{name}: stages ({number + 1}/{choices.repeat})")
            for stage, timing in parts[name].run(_new(folder), segment_files(subject.settings)).items():
                stages[name][stage].append(timing)
            advance(clip.frames)
    return tuple(
        Measured(
            name=name,
            resolved=resolved[name],
            device=str(getattr(subject.extractor, "device", "unknown")),
            stages={stage: tuple(timings) for stage, timings in stages[name].items()},
            end_to_end=tuple(whole[name]),
            peak_memory=peaks[name][0],
            peak_device_memory=peaks[name][1],
            dense=_dense(parts[name].transfer, choices.repeat) if choices.dense else None,
        )
        for name, subject in subjects.items()
    )


def _subject(name: str, settings: Settings, clip: Clip) -> Subject:
    extractor = build_extractor(settings.features.name, **settings.features.options)
    check_fit(clip.label.size, extractor, settings, masks=True)
    first = next(iter(clip.reader(settings)))
    return Subject(name, settings, for_label(extractor, clip.label, first, settings))


def _peaks(
    clip: Clip, name: str, settings: Settings, folder: Path, _on_frame: Callable[[], None]
) -> tuple[int | None, int | None]:
    """The most bytes that this process and its GPU held during a run; loading does not count, what was loaded does."""
    subject = _subject(name, settings, clip)
    reset_peak_memory()
    end_to_end(clip.reader(settings), clip.label, subject, folder, segment_files(settings))
    return peak_memory(), peak_device_memory()


def _dense(transfer: Transfer, repeat: int) -> DenseComparison:
    """Times on the tensors of the clip, memory in processes of their own."""
    found = against_dense(transfer, repeat)
    ours, dense = (
        in_own_process(partial(_memory, way, transfer.shape, transfer.rule), _ignore) for way in get_args(Way)
    )
    return replace(found, ours_memory=ours, dense_memory=dense)


def _memory(way: Way, shape: Shape, rule: Rule, _on_frame: Callable[[], None]) -> int | None:
    return memory_of(way, shape, rule)


def segment_files(settings: Settings) -> OpenSink:
    """What writes the files of `propagate segment`."""

    def open_sink(folder: Path) -> Outputs:
        sinks = [mask_pictures(folder / MASKS), confidence_table(folder / "confidence.csv")]
        if settings.output.overlay:
            sinks.append(overlay_video(folder / "overlay.mp4", _RATE, settings.output.crf))
        return Outputs(sinks)

    return open_sink


def _new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def _ignore() -> None: ...


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that were there before."""
    return [name if (n := names[:i].count(name)) == 0 else f"{name} ({n + 1})" for i, name in enumerate(names)]
