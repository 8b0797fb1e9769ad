"""The files of a comparison: table, contact sheet, side-by-side video, summary."""

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
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from propagate.app.running import outputs
from propagate.app.running.record import command_line
from propagate.app.terminal.console import Terminal
from propagate.app.terminal.progress import progress
from propagate.benchmarks.comparison import contact_sheet as sheets
from propagate.benchmarks.comparison.agreement import TOLERANCE, Agreement
from propagate.benchmarks.comparison.contact_sheet import DIFFERENCE, contact_sheet, side_by_side
from propagate.errors import InputError
from propagate.formats import read_indexed_png
from propagate.formats.output.folder import MASKS
from propagate.provenance import versions
from propagate.types import Frame, Keypoints, Label, Mask
from propagate.video import VideoEndsEarlyWarning, VideoReader, VideoTimesWarning

FILES = TABLE, SHEET, VIDEO, SUMMARY = "agreement.csv", "compare.png", "compare.mp4", "summary.json"
_SHOWN = 8  # frames on the sheet
_CELL, _TILE = (220, 244), (540, 640)  # largest (height, width) of a picture on the sheet and in the video
_ABSENT = "-"


@dataclass(frozen=True)
class Finished:
    """The run of one method."""

    name: str
    folder: Path
    settings_hash: str
    frames: int
    seconds: float  # for all frames, without loading
    frames_per_second: float | None  # without the first frames; None for a short clip
    peak_memory: int | None  # bytes of the process; None where the system does not report it
    peak_device_memory: int | None  # bytes on a GPU
    mean_confidence: float | None  # over objects or joints and all frames but the given one
    notes: tuple[str, ...]


def write_comparison(
    reader: VideoReader,
    first: Label,
    results: Sequence[Finished],
    failed: Mapping[str, str],
    folder: Path,
    terminal: Terminal,
    *,
    stride: int,
) -> tuple[Path, ...]:
    """Read the results frame by frame, compare and draw them, print the table, and return the written files."""
    info, names = reader.info, [result.name for result in results]
    size, count = (info.height, info.width), min(result.frames for result in results)
    shown = sorted({round(place) for place in np.linspace(0, count - 1, _SHOWN).tolist()})
    agreement = Agreement(first, names, size)
    paths = {name: folder / name for name in FILES}
    cells: dict[str, list[np.ndarray]] = {}
    headings: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for category in (VideoEndsEarlyWarning, VideoTimesWarning):  # the runs have printed them
            warnings.simplefilter("ignore", category)
        rows = stack.enter_context(outputs.csv_table(paths[TABLE]))
        rows.writerow(agreement.columns)
        video = stack.enter_context(
            outputs.OptionalVideo(paths[VIDEO], (info.rate or outputs.RATE_WITHOUT_CLOCK) / stride)
        )
        advance = stack.enter_context(progress(terminal, "comparing", count))
        found = {result.name: stack.enter_context(_labels(result.folder, first)) for result in results}
        compared = 0
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
    outputs.write_png(paths[SHEET], sheet, optimize=True)
    outputs.write_json(paths[SUMMARY], _summary(reader, first, results, failed, agreement))
    terminal.result(_printed(results, agreement))
    terminal.notes(_explained(agreement))
    for result in results:
        if result.frames > count:
            terminal.note(f"{result.name} has {result.frames} frames; the first {count}, which all have, are compared.")
    return tuple(path for path in paths.values() if path.exists())  # the video may have failed, with a note


@contextmanager
def _labels(folder: Path, first: Label) -> Iterator[Callable[[Frame], Label]]:
    """Yield a function that reads a result's label of each frame, in order."""
    if isinstance(first, Mask):
        yield lambda frame: read_indexed_png(folder / MASKS / f"{outputs.picture_name(frame)}.png")
    else:
        with closing(_poses(folder / "keypoints.csv", first)) as poses:
            yield lambda _: next(poses)


def _poses(path: Path, first: Keypoints) -> Generator[Keypoints, None, None]:
    """Read the CSV file of a run frame by frame; raise an error at its end."""
    with path.open(encoding="utf-8", newline="") as file:
        for _, rows in groupby(csv.DictReader(file), key=itemgetter("frame")):
            values = [[float(row[column] or "nan") for column in ("x", "y", "confidence")] for row in rows]
            table = np.array(values, np.float32)
            yield Keypoints(table[:, :2], first.names, first.skeleton, table[:, 2])
    raise InputError(f"{path} lacks frames.", "Compare again.")


def _tiles(
    frame: Frame, labels: Mapping[str, Label], box: tuple[int, int], *, names: bool
) -> dict[str, UInt8[ndarray, "y x 3"]]:
    """Draw each result, and the difference of two or more masks."""
    size = sheets.fitted(frame.size, box)
    tiles = {name: sheets.drawn(frame.pixels, label, size, names=names) for name, label in labels.items()}
    masks = [label for label in labels.values() if isinstance(label, Mask)]
    if len(masks) > 1:
        tiles[DIFFERENCE] = sheets.difference(frame.pixels, masks, size)
    return tiles


def _when(frame: Frame) -> str:
    return f"frame {frame.index}, {frame.time_s:.1f} s"


def _caption(result: Finished, agreement: Agreement) -> tuple[str, ...]:
    together = agreement.with_others(result.name)
    lines = [
        None if result.frames_per_second is None else f"{result.frames_per_second:.3g} frames/s",
        None if result.peak_memory is None else f"{result.peak_memory / 2**20:.0f} MiB",
        None if together is None else f"agrees {100 * together:.0f} %",
        None if result.mean_confidence is None else f"confidence {result.mean_confidence:.2f}",
    ]
    return tuple(line for line in lines if line is not None)


def _explained(agreement: Agreement) -> tuple[str, ...]:
    """Explain the numbers."""
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
            _ABSENT if result.mean_confidence is None else f"{result.mean_confidence:.2f}",
            *(
                _ABSENT if value is None else f"{100 * value:.1f} %"
                for value in (agreement.with_others(result.name), *pairs)
            ),
        )
    return table


def _summary(
    reader: VideoReader, first: Label, results: Sequence[Finished], failed: Mapping[str, str], agreement: Agreement
) -> dict[str, Any]:
    info = reader.info
    return {
        "command": command_line(),
        "clip": {"path": info.source, "width": info.width, "height": info.height, "frames": results[0].frames},
        "label": {"objects": first.objects} if isinstance(first, Mask) else {"joints": first.names},
        "measure": _explained(agreement)[0],
        "tolerance_px": agreement.tolerance,
        "configs": [
            {
                **{name: value for name, value in vars(result).items() if name != "notes"},
                "folder": result.folder.name,
                "seconds": round(result.seconds, 4),
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
