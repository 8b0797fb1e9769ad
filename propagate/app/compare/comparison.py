"""Run presets and baselines on one clip, one after the other."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from propagate.app.compare.files import FILES, Finished, write_comparison
from propagate.app.running.inputs import LabelFile, read_keypoints, read_mask
from propagate.app.running.outputs import Outputs, confidence_table, keypoints_file, mask_pictures
from propagate.app.running.own_process import in_own_process
from propagate.app.running.record import input_record, threads
from propagate.app.terminal.console import Terminal, own_warnings
from propagate.app.terminal.interrupt import Interrupted
from propagate.app.terminal.progress import progress
from propagate.benchmarks.running.clip_folder import clip_folder, remove_unfinished
from propagate.benchmarks.running.evaluation_folder import Output
from propagate.benchmarks.running.methods import Method, fetch_weights, load_methods
from propagate.benchmarks.running.resources import peak_device_memory, peak_memory, reset_peak_memory
from propagate.errors import SOME_FAILED, InputError, PropagateError, UsageError
from propagate.formats import prepare_output, write_run_record
from propagate.formats.output.folder import MASKS
from propagate.pipeline import with_frames
from propagate.settings import VideoSettings
from propagate.types import FrameInfo, Keypoints, Mask
from propagate.video import VideoReader, open_video

_CLIP_SETTINGS = ("video.reader", "video.strict", "video.from_frame", "video.to_frame", "video.stride")
_UNTIMED = 2  # frames before the clock starts: they include compiling and loading


def methods_of(configs: Sequence[str], assignments: Sequence[str], device: str | None) -> tuple[Method, ...]:
    """Load the methods to compare; errors as `load_methods`."""
    if len(configs) < 2:
        raise UsageError(
            f"--config {configs[0]} alone cannot be compared.", "Give --config again: a preset, a file, static or flow."
        )
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if key in _CLIP_SETTINGS:
            option = f"--{key.removeprefix('video.').replace('_', '-')}"
            raise UsageError(f"--set {key}: all methods read the same frames.", f"Give {option} instead.")
    return load_methods(configs, assignments, device=device)


def read_label(
    mask: Path | None,
    keypoints: Path | None,
    info: FrameInfo,
    terminal: Terminal,
    *,
    resize: bool,
    harden: bool,
    frame: int | None,
) -> LabelFile:
    """Read the label of the first frame from one of the two files.

    `frame` is its number in a keypoints file, or None if the user did not choose.
    """
    size = (info.height, info.width)
    if mask is not None and keypoints is None:
        return read_mask(mask, size, terminal, resize=resize, harden=harden)
    if keypoints is None or mask is not None:
        found = "Neither" if mask is None else "Both"
        raise UsageError(f"{found} --mask and --keypoints were given.", "Give one of them.")
    if resize or harden:
        raise UsageError("--resize-mask and --harden are for masks, not for keypoints.", "Leave them out.")
    picture = info.names[0] if info.names else None
    return read_keypoints(keypoints, size, terminal, frame=frame or 0, picture=picture, alone=frame is None)


def compare_methods(
    reader: VideoReader,
    first: LabelFile,
    methods: Sequence[Method],
    folder: Path,
    terminal: Terminal,
    frames: VideoSettings,
    *,
    overwrite: bool,
) -> int:
    """Run the methods one after the other, then compare their results.

    Every method opens the clip again with the options `frames`, and has a folder of its own. Returns 0, or 6 where some
    methods failed; raises the first error where all failed.
    """
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        prepare_output(folder, overwrite=False)  # raises the error
    fetch_weights(methods)  # before earlier results are removed
    output = Output(folder, [method.name for method in methods], overwrite=overwrite)
    info, finished, failed = reader.info, list[Finished](), dict[str, PropagateError]()
    with output.lock() as notes:
        terminal.notes(notes)
        try:
            output.protect([Path(info.source), first.path])
            output.clear([output.of(method.name) for method in methods])
            output.register([folder / name for name in FILES])
            with progress(terminal, "starting", info.count and info.count * len(methods)) as advance:
                for number, method in enumerate(methods, start=1):
                    advance.describe(f"{method.name} ({number}/{len(methods)})")
                    place = output.of(method.name)
                    work = partial(_run, Path(info.source), frames, first, method, place)
                    try:
                        finished.append(in_own_process(work, advance))
                        terminal.notes(f"{method.name}: {note}" for note in finished[-1].notes)
                    except PropagateError as error:
                        failed[method.name] = error
                        terminal.error(f"{method.name}: {error.message}", error.remedy)
                    finally:
                        remove_unfinished(place)
            if not finished:
                raise next(iter(failed.values()))
            failures = {name: str(error) for name, error in failed.items()}
            written = write_comparison(reader, first.label, finished, failures, folder, terminal, stride=frames.stride)
        except KeyboardInterrupt as interrupt:
            count = f"{len(finished)} of {len(methods)} configurations are finished"
            kept = f"{count}; their folders in {folder} are complete."
            nothing = "Interrupted before the first configuration was finished; nothing was written."
            raise Interrupted(kept if finished else nothing) from interrupt
        finally:
            if not finished:
                output.discard_if_empty()
        for path in (*(one.folder for one in finished), *written):
            terminal.result(f"  {path}")
    return SOME_FAILED if failed else 0


def _run(
    video: Path, frames: VideoSettings, first: LabelFile, method: Method, folder: Path, on_frame: Callable[[], None]
) -> Finished:
    """Propagate the label with one method into its folder, which appears when it is complete."""
    times, confidences = list[float](), list[float]()
    with clip_folder(folder) as place, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        method.prepare()
        reader = open_video(video, **frames.reading, leave_out=[first.path])
        info = reader.info
        if isinstance(first.label, Mask):
            sinks = [mask_pictures(place / MASKS), confidence_table(place / "confidence.csv")]
        else:
            sinks = [keypoints_file(place / f"keypoints.{kind}", (info.height, info.width)) for kind in ("json", "csv")]
        reset_peak_memory()
        start = time.perf_counter()
        with Outputs(sinks) as outputs:
            for frame, prediction in with_frames(reader, partial(method.carry, label=first.label)):
                outputs.write(frame, prediction)
                times.append(time.perf_counter())
                if outputs.frames > 1 and prediction.confidence:
                    confidences.append(sum(prediction.confidence.values()) / len(prediction.confidence))
                on_frame()
        if not times:
            raise InputError(f"{info.source} has no frames.", "Check --from-frame, --to-frame and the file.")
        finished = Finished(
            name=method.name,
            folder=folder,
            settings_hash=method.settings_hash,
            frames=len(times),
            seconds=times[-1] - start,
            frames_per_second=_rate(times),
            peak_memory=peak_memory(),
            peak_device_memory=peak_device_memory(),
            mean_confidence=sum(confidences) / len(confidences) if confidences else None,
            notes=tuple(dict.fromkeys(own_warnings(caught))),
        )
        sizes = {path.relative_to(place).as_posix(): path.stat().st_size for path in place.rglob("*") if path.is_file()}
        record = {
            "command": "compare",
            "method": method.name,
            "settings": method.settings,
            "origins": method.origins,
            "settings_hash": method.settings_hash,
            "versions": method.versions,
            "threads": threads(),
            **input_record(info),
            "input_hash": _input_hash(video, first),
            "label": first.record,
            "status": "finished",
            "frames_done": finished.frames,
            "seconds_per_frame": round(finished.seconds / finished.frames, 4),
            "peak_memory": finished.peak_memory,
            "peak_device_memory": finished.peak_device_memory,
            "notes": tuple(dict.fromkeys(str(warning.message) for warning in caught)),
            "files": sizes,
        }
        write_run_record(place, record)
    return finished


def _rate(stamps: Sequence[float]) -> float | None:
    """Return frames per second without the first frames, or None for a short clip."""
    timed = len(stamps) - _UNTIMED
    elapsed = stamps[-1] - stamps[_UNTIMED - 1] if timed > 0 else 0.0
    return timed / elapsed if elapsed > 0 else None


def _input_hash(source: Path, first: LabelFile) -> str:
    """Return the SHA-256 of the clip's files and the label."""
    digest = hashlib.sha256()
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    label = first.label
    names, array = (label.names, label.positions) if isinstance(label, Keypoints) else ((), label.ids)
    digest.update(json.dumps(names).encode() + array.tobytes())
    return digest.hexdigest()
