"""Load, warm up and time every configuration, run by run in turns."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from propagate.app.bench.choices import ClipChoices
from propagate.app.bench.report import Measured, as_table, as_text, dense_table
from propagate.app.running import outputs
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
_WARM_UP = 3  # frames: compiling and loading end with the second


@dataclass(frozen=True)
class Clip:
    """The clip of all configurations."""

    path: Path
    frames: int  # number to read
    label: Mask
    origin: str  # the path, or "generated clip"
    leave_out: tuple[Path, ...] = ()  # the mask's file, which may lie among the pictures

    def reader(self, settings: Settings, frames: int | None = None) -> VideoReader:
        """Open the clip, or its first frames."""
        stop = min(frames or self.frames, self.frames)
        return open_video(self.path, reader=settings.video.reader, to_frame=stop, leave_out=self.leave_out)


def check_size(text: str | None, video: Path | None) -> tuple[int, int]:
    """Return (height, width) from "854x480"; raise a UsageError for other texts, or if a video has its own."""
    if text is None:
        return _SIZE
    if video is not None:
        raise UsageError(f"--size {text}: {video} has a size of its own.", "Leave it out, or set video.short_side.")
    parts = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if parts is None:
        raise UsageError(f"--size {text} is no size.", "Give width and height, such as 854x480.")
    return int(parts[2]), int(parts[1])


def run_bench(
    choices: ClipChoices,
    size: tuple[int, int],
    settings: Sequence[tuple[str, ResolvedSettings]],
    terminal: Terminal,
    *,
    repeat: int,
    dense: bool,
    as_json: bool,
) -> None:
    """Measure each configuration, given by name and settings, and print a table or JSON."""
    features = [resolved.settings.features for _, resolved in settings]
    obtain(wanted for one in features for wanted in wanted_weights(one.name, **one.options))
    names = [name for name, _ in settings]
    numbers = [names[:i].count(name) for i, name in enumerate(names)]
    resolved = {f"{name} ({n + 1})" if n else name: r for n, (name, r) in zip(numbers, settings, strict=True)}
    with tempfile.TemporaryDirectory(prefix="propagate-bench-") as name:
        with terminal.status("Preparing the clip"):
            clip = _clip(choices, size, Path(name))
        with progress(terminal, "starting", len(settings) * (1 + 2 * repeat) * clip.frames) as advance:
            measured = _measure(clip, resolved, Path(name), advance, repeat=repeat, dense=dense)
    here = machine()
    if as_json:
        terminal.answer(as_text(measured, here, clip.origin, clip.frames, clip.label, repeat))
        return
    height, width = clip.label.size
    objects = len(clip.label.objects)
    terminal.heading(
        f"{clip.origin}: {clip.frames} frames of {width}x{height}, {objects} object{'' if objects == 1 else 's'}"
    )
    terminal.answer(as_table(measured))
    if dense:
        terminal.answer(dense_table(measured))
    terminal.note(
        f"Median of {repeat} runs after a warm-up, milliseconds per frame. {here['processor']}, "
        f"{here['threads']} of {here['cores']} threads, load {here['load_average']}."
    )


def _clip(choices: ClipChoices, size: tuple[int, int], folder: Path) -> Clip:
    video, mask, objects = choices.video, choices.mask, choices.objects or 1
    if video is None:
        if mask is not None:
            raise UsageError("--mask needs a VIDEO.", "Give the video too, or --objects for a generated one.")
        path = folder / "clip.mp4"
        label = generate_clip(path, frames=choices.frames, size=size, objects=objects)
        return Clip(path, choices.frames, label, "generated clip")
    if mask is not None and choices.objects is not None:
        raise UsageError(f"--objects {objects}: the mask has its own.", "Give one of them.")
    leave_out = () if mask is None else (mask,)
    info = open_video(video, leave_out=leave_out).info
    if info.count == 1:
        raise UsageError(f"{video} has a single frame, so there is nothing to propagate.", "Give two or more.")
    frames = choices.frames if info.count is None else min(choices.frames, info.count)
    size = info.height, info.width
    label = shapes_mask(size, objects) if mask is None else read_mask_file(mask, frame_size=size).mask
    return Clip(video, frames, label, str(video), leave_out)


def _measure(
    clip: Clip, resolved: dict[str, ResolvedSettings], folder: Path, advance: Advance, *, repeat: int, dense: bool
) -> list[Measured]:
    def new_folder() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    def run(subject: Subject, frames: int | None = None) -> Timing:
        reader = clip.reader(subject.settings, frames)
        return end_to_end(reader, clip.label, subject, new_folder(), segment_files(subject.settings))

    peaks, subjects = {}, {}
    for name, one in resolved.items():
        advance.describe(f"{name}: memory")
        peaks[name] = in_own_process(partial(_peaks, clip, name, one.settings, new_folder()), _ignore)
        advance(clip.frames)
    for name, one in resolved.items():
        advance.describe(f"{name}: warm-up")
        subjects[name] = _subject(name, one.settings, clip)
        run(subjects[name], _WARM_UP)
    whole: dict[str, list[Timing]] = {name: [] for name in resolved}
    stages: dict[str, dict[str, list[Timing]]] = {name: {stage: [] for stage in STAGES} for name in resolved}
    for number in range(repeat):
        for name, subject in subjects.items():
            advance.describe(f"{name}: end to end ({number + 1}/{repeat})")
            whole[name].append(run(subject))
            advance(clip.frames)
    parts = {name: Stages(clip.reader(one.settings), clip.label, one) for name, one in subjects.items()}
    for number in range(repeat):
        for name, subject in subjects.items():
            advance.describe(f"{name}: stages ({number + 1}/{repeat})")
            for stage, timing in parts[name].run(new_folder(), segment_files(subject.settings)).items():
                stages[name][stage].append(timing)
            advance(clip.frames)
    return [
        Measured(
            name=name,
            resolved=resolved[name],
            device=str(getattr(subject.extractor, "device", "unknown")),
            stages={stage: tuple(timings) for stage, timings in stages[name].items()},
            end_to_end=tuple(whole[name]),
            peak_memory=peaks[name][0],
            peak_device_memory=peaks[name][1],
            dense=_dense(parts[name].transfer, repeat) if dense else None,
        )
        for name, subject in subjects.items()
    ]


def _subject(name: str, settings: Settings, clip: Clip) -> Subject:
    extractor = build_extractor(settings.features.name, **settings.features.options)
    check_fit(clip.label.size, extractor, settings, masks=True)
    first = next(iter(clip.reader(settings)))
    return Subject(name, settings, for_label(extractor, clip.label, first, settings))


def _peaks(
    clip: Clip, name: str, settings: Settings, folder: Path, _on_frame: Callable[[], None]
) -> tuple[int | None, int | None]:
    """Return the peak memory of this process and its GPU during a run, loaded weights included."""
    subject = _subject(name, settings, clip)
    reset_peak_memory()
    end_to_end(clip.reader(settings), clip.label, subject, folder, segment_files(settings))
    return peak_memory(), peak_device_memory()


def _dense(transfer: Transfer, repeat: int) -> DenseComparison:
    """Time both on the tensors of the clip, and measure their memory in processes of their own."""
    ours, dense = (
        in_own_process(partial(_memory, way, transfer.shape, transfer.rule), _ignore) for way in get_args(Way)
    )
    return replace(against_dense(transfer, repeat), ours_memory=ours, dense_memory=dense)


def _memory(way: Way, shape: Shape, rule: Rule, _on_frame: Callable[[], None]) -> int | None:
    return memory_of(way, shape, rule)


def segment_files(settings: Settings) -> OpenSink:
    """Return a function that opens the files of `propagate segment`."""

    def open_sink(folder: Path) -> outputs.Outputs:
        sinks = [outputs.mask_pictures(folder / MASKS), outputs.confidence_table(folder / "confidence.csv")]
        if settings.output.overlay:
            sinks.append(outputs.overlay_video(folder / "overlay.mp4", outputs.RATE_WITHOUT_CLOCK, settings.output.crf))
        return outputs.Outputs(sinks)

    return open_sink


def _ignore() -> None: ...
