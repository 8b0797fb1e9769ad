"""What `propagate compare` does: presets and baselines on one clip, one after the other, and all of them together."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from propagate.app.compare.files import FILES, Finished, write_comparison
from propagate.app.running.inputs import LabelFile, read_first_keypoints, read_first_mask
from propagate.app.running.outputs import Outputs, confidence_table, keypoints_file, mask_pictures
from propagate.app.running.own_process import in_own_process
from propagate.app.running.record import input_record, label_record, threads
from propagate.app.terminal.console import Terminal
from propagate.app.terminal.interrupt import Stopped
from propagate.app.terminal.progress import progress
from propagate.benchmarks.running.clip_folder import clip_folder, remove_unfinished
from propagate.benchmarks.running.methods import Method, fetch_weights, load_methods
from propagate.benchmarks.running.output import Output
from propagate.benchmarks.running.resources import peak_device_memory, peak_memory, reset_peak_memory
from propagate.errors import SOME_FAILED, InputError, PropagateError, PropagateWarning, UsageError
from propagate.formats import prepare_output, write_run_record
from propagate.formats.output.folder import MASKS
from propagate.pipeline import with_frames
from propagate.settings import VideoSettings
from propagate.types import FrameInfo, Keypoints, Mask
from propagate.video import VideoReader, open_video

_OF_THE_CLIP = ("video.reader", "video.strict", "video.from_frame", "video.to_frame", "video.stride")
_UNTIMED = 2  # frames after which the clock starts: what is compiled and loaded on the way is not a matter of speed


def open_frames(video: Path, frames: VideoSettings, leave_out: Path) -> VideoReader:
    """The clip as all methods see it, without the label's file if that lies among its pictures.

    Raises:
        InputError, UsageError: see `open_video`.
    """
    return open_video(video, **frames.reading, leave_out=[leave_out])


def methods_of(configs: Sequence[str], assignments: Sequence[str], device: str | None) -> tuple[Method, ...]:
    """What is compared.

    Raises:
        UsageError: fewer than two, two of one name, an unknown one, or a setting that does not fit.
        WeightsError: weights that were named cannot be read.
    """
    if len(configs) < 2:
        raise UsageError(
            f"--config {configs[0]} alone cannot be compared.", "Give --config again: a preset, a file, static or flow."
        )
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if key in _OF_THE_CLIP:
            option = f"--{key.removeprefix('video.').replace('_', '-')}"
            raise UsageError(f"--set {key}: all that are compared see the same frames.", f"Give {option} instead.")
    return load_methods(configs, assignments, device=device)


def read_label(
    mask: Path | None,
    keypoints: Path | None,
    info: FrameInfo,
    terminal: Terminal,
    *,
    resize: bool,
    harden: bool = False,
    frame: int,
    alone: bool = False,
) -> LabelFile:
    """The label of the first frame, from whichever file was given.

    Raises:
        UsageError: neither, or both; or keypoints with what is for masks.
        InputError: it cannot be read.
    """
    if mask is not None and keypoints is None:
        return read_first_mask(mask, info, terminal, resize=resize, harden=harden)
    if keypoints is not None and mask is None:
        if resize or harden:
            raise UsageError("--resize-mask and --harden are for masks, not for keypoints.", "Leave them out.")
        return read_first_keypoints(keypoints, info, terminal, frame=frame, alone=alone)
    raise UsageError(f"{'Neither' if mask is None else 'Both'} --mask and --keypoints were given.", "Give one of them.")


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
    """Run the methods one after the other, then read their results back and put them side by side.

    Args:
        reader: the clip.
        first: the label of its first frame.
        methods: what is compared.
        folder: gets a folder per method, and the files about all of them.
        terminal: where to print.
        frames: how the clip was opened; every method opens it so again.
        overwrite: replace what an earlier comparison wrote.

    Returns:
        The exit code: 0, or 6 where some failed; the others are compared all the same.

    Raises:
        UsageError: the folder holds something, or what is compared lies among what is replaced.
        PropagateError: all of them failed; the first one's error.
        Stopped: Ctrl-C; those that are finished stay.
    """
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        prepare_output(folder, overwrite=False)  # which says so
    fetch_weights(methods)  # before results of before are removed
    output = Output(folder, [method.name for method in methods], overwrite=overwrite)
    with output.held() as notes:
        terminal.notes(notes)
        return _compare(reader, first, methods, output, terminal, frames)


def _compare(
    reader: VideoReader,
    first: LabelFile,
    methods: Sequence[Method],
    output: Output,
    terminal: Terminal,
    frames: VideoSettings,
) -> int:
    """Run and compare, in a folder that is held; see `compare_methods`."""
    folder = output.folder
    finished, failed = list[Finished](), dict[str, PropagateError]()
    try:
        output.keep([Path(reader.info.source), first.path])
        output.make_way([output.of(method.name) for method in methods])
        output.claim([folder / name for name in FILES])
        with progress(terminal, "starting", reader.info.count and reader.info.count * len(methods)) as advance:
            for number, method in enumerate(methods, start=1):
                advance.describe(f"{method.name} ({number}/{len(methods)})")
                place = output.of(method.name)
                work = partial(_run, Path(reader.info.source), frames, first, method, place)
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
        command = shlex.join(["propagate", *sys.argv[1:]])
        failures = {name: str(error) for name, error in failed.items()}
        written = write_comparison(
            reader, first.label, finished, failures, folder, terminal, command=command, stride=frames.stride
        )
    except KeyboardInterrupt as interrupt:
        kept = f"{len(finished)} of {len(methods)} configurations are finished; their folders in {folder} are complete."
        nothing = "Interrupted before the first configuration was finished; nothing was written."
        raise Stopped(kept if finished else nothing) from interrupt
    finally:
        if not finished:
            output.forget_if_empty()
    for path in (*(one.folder for one in finished), *written):
        terminal.result(f"  {path}")
    return SOME_FAILED if failed else 0


def _run(
    video: Path, frames: VideoSettings, first: LabelFile, method: Method, folder: Path, on_frame: Callable[[], None]
) -> Finished:
    """Carry the label with one method into its folder, which is there when everything in it is."""
    times, certainty = list[float](), list[float]()
    with clip_folder(folder) as place, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        method.prepare()
        reader = open_frames(video, frames, first.path)
        info = reader.info
        if isinstance(first.label, Mask):
            sinks = [mask_pictures(place / MASKS), confidence_table(place / "confidence.csv")]
        else:
            sinks = [keypoints_file(place / f"keypoints.{kind}", (info.height, info.width)) for kind in ("json", "csv")]
        carried = partial(method.carry, label=first.label)
        reset_peak_memory()
        start = time.perf_counter()
        with Outputs(sinks) as outputs:
            for frame, prediction in with_frames(reader, carried):
                outputs.write(frame, prediction)
                times.append(time.perf_counter())
                if outputs.frames > 1 and prediction.confidence:
                    certainty.append(sum(prediction.confidence.values()) / len(prediction.confidence))
                on_frame()
        if not times:
            raise InputError(f"{info.source} has no frames.", "Check --from-frame, --to-frame and the file.")
        telling = [w for w in caught if issubclass(w.category, PropagateWarning)]
        finished = Finished(
            name=method.name,
            folder=folder,
            settings_hash=method.settings_hash,
            frames=len(times),
            seconds=times[-1] - start,
            frames_per_second=_rate(times),
            peak_memory=peak_memory(),
            peak_device_memory=peak_device_memory(),
            confidence=sum(certainty) / len(certainty) if certainty else None,
            notes=tuple(dict.fromkeys(str(warning.message) for warning in telling)),
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
            "label": label_record(first.path, first.label, first.notes),
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
    """Frames per second from the second frame on; None where there are not more."""
    timed = len(stamps) - _UNTIMED
    elapsed = stamps[-1] - stamps[_UNTIMED - 1] if timed > 0 else 0.0
    return timed / elapsed if elapsed > 0 else None


def _input_hash(source: Path, first: LabelFile) -> str:
    """SHA-256 over the clip's files and the label."""
    digest = hashlib.sha256()
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    label = first.label
    held = label.positions if isinstance(label, Keypoints) else label.ids
    names = label.names if isinstance(label, Keypoints) else ()
    digest.update(json.dumps(names).encode() + held.tobytes())
    return digest.hexdigest()
