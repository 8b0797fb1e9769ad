"""What a comparison says of all its results together: table, contact sheet, side-by-side video, summary."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from propagate.app.running.outputs import ForgivingVideo, picture_name
from propagate.app.terminal.console import Terminal
from propagate.app.terminal.progress import progress
from propagate.benchmarks.comparison.agreement import TOLERANCE, Agreement
from propagate.benchmarks.comparison.contact_sheet import (
    DIFFERENCE,
    contact_sheet,
    difference,
    drawn,
    fitted,
    side_by_side,
)
from propagate.errors import InputError
from propagate.files.atomic import atomic_path
from propagate.formats import read_indexed_png
from propagate.formats.output.folder import MASKS
from propagate.formats.output.run_record import json_text
from propagate.provenance import versions
from propagate.types import Frame, Keypoints, Label, Mask
from propagate.video import VideoEndsEarlyWarning, VideoReader, VideoTimesWarning

FILES = TABLE, SHEET, VIDEO, SUMMARY = "agreement.csv", "compare.png", "compare.mp4", "summary.json"
_SHOWN = 8  # frames on the sheet
_CELL, _TILE = (220, 244), (540, 640)  # the most (height, width) of a picture on the sheet and in the video
_RATE_WITHOUT_CLOCK = 25.0  # a folder of pictures is played at this rate
_ABSENT = "-"


@dataclass(frozen=True)
class Finished:
    """How one method ran.

    Attributes:
        name: of the method.
        folder: of its results.
        settings_hash: of all its settings.
        frames: how many.
        seconds: for all of them, without loading.
        frames_per_second: from the second frame on; None where there are not more.
        peak_memory: largest resident size of the process meanwhile, in bytes; None where the system does not say.
        peak_device_memory: the most bytes of tensors on a GPU; None without one.
        confidence: mean over objects or joints and all frames but the given one; None where there are no others.
        notes: warnings on the way.
    """

    name: str
    folder: Path
    settings_hash: str
    frames: int
    seconds: float
    frames_per_second: float | None
    peak_memory: int | None
    peak_device_memory: int | None
    confidence: float | None
    notes: tuple[str, ...]


def write_comparison(
    reader: VideoReader,
    first: Label,
    results: Sequence[Finished],
    failed: Mapping[str, str],
    folder: Path,
    terminal: Terminal,
    *,
    command: str,
    stride: int,
) -> tuple[Path, ...]:
    """Read the results back frame by frame, compare and draw them, and print the table.

    Args:
        reader: the clip, which is read once more.
        first: the given label.
        results: what is compared.
        failed: name -> why there is no result.
        folder: where to.
        terminal: where to print.
        command: for the summary.
        stride: every so many frames of the clip were read.

    Returns:
        The files.

    Raises:
        InputError: a result cannot be read back, the clip has fewer frames than before, or a file cannot be written.
    """
    info, names = reader.info, [result.name for result in results]
    size, count = (info.height, info.width), min(result.frames for result in results)
    shown = sorted({round(place) for place in np.linspace(0, count - 1, _SHOWN).tolist()})
    agreement = Agreement(first, names, size)
    paths = {name: folder / name for name in FILES}
    cells: dict[str, list[np.ndarray]] = {}
    compared = 0
    headings: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for told in (VideoEndsEarlyWarning, VideoTimesWarning):  # by the runs
            warnings.simplefilter("ignore", told)
        rows = stack.enter_context(_table(paths[TABLE], agreement.columns))
        video = stack.enter_context(ForgivingVideo(paths[VIDEO], (info.rate or _RATE_WITHOUT_CLOCK) / stride))
        advance = stack.enter_context(progress(terminal, "comparing", count))
        found = {result.name: stack.enter_context(_labels(result.folder, first)) for result in results}
        for position, frame in zip(range(count), reader, strict=False):
            labels = {name: label_of(frame) for name, label_of in found.items()}
            if position:
                rows.writerows(agreement.add(frame.index, labels))
            video.write(side_by_side(_tiles(frame, labels, _TILE, names=True), _when(frame)), frame.time_s)
            if position in shown:
                headings.append(_when(frame) + (", given" if position == 0 else ""))
                for name, picture in _tiles(frame, labels, _CELL, names=False).items():
                    cells.setdefault(name, []).append(picture)
            advance()
            compared += 1
        if compared < count:
            raise InputError(f"{info.source} had {count} frames, and {compared} when it was read again.", "Check it.")
    captions = {result.name: _caption(result, agreement) for result in results}
    captions[DIFFERENCE] = ("orange: not all give", "the same object")
    title = f"{'/'.join(Path(info.source).parts[-2:])}: a row per configuration, a column per frame"
    sheet = contact_sheet(title, headings, cells, captions, _explained(agreement))
    with atomic_path(paths[SHEET]) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG", optimize=True)
    _write_summary(paths[SUMMARY], reader, first, results, failed, agreement, command)
    terminal.result(_printed(results, agreement))
    terminal.notes(_explained(agreement))
    for result in results:
        if result.frames > count:
            terminal.note(f"{result.name} has {result.frames} frames; the first {count}, which all have, are compared.")
    return tuple(path for path in paths.values() if path.exists())  # the video may have failed, which a note says


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """A CSV file with its headings, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        yield rows


@contextmanager
def _labels(folder: Path, first: Label) -> Iterator[Callable[[Frame], Label]]:
    """A function that gives a finished result's label of each frame, asked for in order, from its files."""
    if isinstance(first, Mask):
        yield lambda frame: read_indexed_png(folder / MASKS / f"{picture_name(frame)}.png")
    else:
        with closing(_poses(folder / "keypoints.csv", first)) as poses:
            yield lambda _: next(poses)


def _poses(path: Path, first: Keypoints) -> Generator[Keypoints, None, None]:
    """The keypoints of a CSV file that a run wrote, frame by frame.

    Raises:
        InputError: it ends.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for _, rows in groupby(csv.DictReader(file), key=itemgetter("frame")):
            values = [[float(row[column] or "nan") for column in ("x", "y", "confidence")] for row in rows]
            table = np.array(values, np.float32)
            yield Keypoints(table[:, :2], first.names, first.skeleton, table[:, 2])
    raise InputError(f"{path} lacks frames.", "Compare again.")


def _tiles(
    frame: Frame, labels: Mapping[str, Label], box: tuple[int, int], *, names: bool
) -> dict[str, UInt8[ndarray, "y x 3"]]:
    """A picture per result, and for two or more masks one of where they differ."""
    size = fitted(frame.size, box)
    tiles = {name: drawn(frame.pixels, label, size, names=names) for name, label in labels.items()}
    masks = [label for label in labels.values() if isinstance(label, Mask)]
    if len(masks) > 1:
        tiles[DIFFERENCE] = difference(frame.pixels, masks, size)
    return tiles


def _when(frame: Frame) -> str:
    return f"frame {frame.index}, {frame.time_s:.1f} s"


def _caption(result: Finished, agreement: Agreement) -> tuple[str, ...]:
    """What stands below a name on the sheet."""
    together = agreement.with_others(result.name)
    lines = [
        None if result.frames_per_second is None else f"{result.frames_per_second:.3g} frames/s",
        None if result.peak_memory is None else f"{result.peak_memory / 2**20:.0f} MiB",
        None if together is None else f"agrees {100 * together:.0f} %",
        None if result.confidence is None else f"confidence {result.confidence:.2f}",
    ]
    return tuple(line for line in lines if line is not None)


def _explained(agreement: Agreement) -> tuple[str, ...]:
    """What the numbers mean, in sentences."""
    if agreement.tolerance is None:
        measure = "mean J (intersection over union) of an object's masks from two configurations, over all frames"
    else:
        measure = (
            f"share of the joints that two configurations place within {agreement.tolerance:.1f} pixels "
            f"({100 * TOLERANCE:g} % of the frame's diagonal), over all frames"
        )
    return (
        f"Agreement: {measure} but the given one; 100 % is the same result.",
        "It says who differs, not who is right. Frames/s without loading and the first two frames; memory is that of a "
        "process of its own, with its libraries.",
    )


def _printed(results: Sequence[Finished], agreement: Agreement) -> Table:
    """A row per configuration."""
    on_gpu = any(result.peak_device_memory is not None for result in results)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for heading in ("frames/s", "peak MiB", *(["GPU MiB"] if on_gpu else []), "confidence", "agrees with others"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_column(Text(f"with {result.name}"), justify="right")
    for result in results:
        sizes = [result.peak_memory, *([result.peak_device_memory] if on_gpu else [])]
        pairs = [None if other.name == result.name else agreement.between(result.name, other.name) for other in results]
        table.add_row(
            Text(result.name),
            _ABSENT if result.frames_per_second is None else f"{result.frames_per_second:.3g}",
            *(_ABSENT if size is None else f"{size / 2**20:.0f}" for size in sizes),
            _ABSENT if result.confidence is None else f"{result.confidence:.2f}",
            *(
                _ABSENT if value is None else f"{100 * value:.1f} %"
                for value in (agreement.with_others(result.name), *pairs)
            ),
        )
    return table


def _write_summary(
    path: Path,
    reader: VideoReader,
    first: Label,
    results: Sequence[Finished],
    failed: Mapping[str, str],
    agreement: Agreement,
    command: str,
) -> None:
    info = reader.info
    content = {
        "command": command,
        "clip": {"path": info.source, "width": info.width, "height": info.height, "frames": results[0].frames},
        "label": {"objects": first.objects} if isinstance(first, Mask) else {"joints": first.names},
        "measure": _explained(agreement)[0],
        "tolerance_px": agreement.tolerance,
        "configs": [
            {
                "name": result.name,
                "folder": result.folder.name,
                "settings_hash": result.settings_hash,
                "frames": result.frames,
                "seconds": round(result.seconds, 4),
                "frames_per_second": result.frames_per_second,
                "peak_memory": result.peak_memory,
                "peak_device_memory": result.peak_device_memory,
                "mean_confidence": result.confidence,
                "agreement_with_others": agreement.with_others(result.name),
                "notes": result.notes,
            }
            for result in results
        ],
        "agreement": [
            {"configs": pair, "mean": agreement.between(*pair), "median_distance_px": agreement.distance(*pair)}
            for pair in agreement.pairs
        ],
        "failed": failed,
        "versions": versions(),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")
