"""Match two pictures by their features, and write files that show the matches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from propagate.app.running.inputs import read_keypoints, read_one_picture
from propagate.app.running.outputs import output_folder, refuse_replacing, write_json, write_png
from propagate.app.running.record import settings_record
from propagate.app.terminal.console import Terminal
from propagate.errors import UsageError
from propagate.features import FeatureExtractor, build_extractor, wanted_weights
from propagate.features.anchoring import anchored
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.features.passes import check_finite
from propagate.files.atomic import atomic_path
from propagate.formats import write_run_record
from propagate.formats.output.folder import HEAT
from propagate.geometry import grid_size, grid_to_pixels, pixels_to_grid, resize_frame, to_tensor, working_size
from propagate.planning.fitting import check_fit
from propagate.provenance import versions
from propagate.references.crop import padded
from propagate.references.label_from_references import LOW_COSINE, LOW_SHARE
from propagate.references.match_drawings import draw_heat, draw_lines, draw_wheel
from propagate.references.matching import TOLERANCE, match_cells, match_points, similarity_maps
from propagate.settings import ResolvedSettings, Settings
from propagate.types import Keypoints
from propagate.weights.locating import obtain

_RESULTS = ("correspondences.json", "dense.npz", "dense.png", "lines.png", "run.json", HEAT)

PictureA = UInt8[ndarray, "h w 3"]
PictureB = UInt8[ndarray, "y x 3"]


def write_matches(
    path_a: Path,
    path_b: Path,
    points: Path | None,
    output: Path,
    resolved: ResolvedSettings,
    terminal: Terminal,
    *,
    dense: bool,
    overwrite: bool,
) -> None:
    """Match two pictures and write the results.

    Writes correspondences.json, lines.png and heat/01_NAME.png per point (with `points`), dense.npz and dense.png (with
    `dense`), run.json.
    """
    if points is None and not dense:
        raise UsageError("There is nothing to match.", "Give --points FILE, or --dense for every cell.")
    settings, start = resolved.settings, time.monotonic()
    (a, notes_a), (b, notes_b) = read_one_picture(path_a, "The picture"), read_one_picture(path_b, "The picture")
    notes = [*notes_a, *notes_b]
    terminal.notes(notes)
    keypoints = None if points is None else read_keypoints(points, (a.shape[0], a.shape[1]), terminal)
    notes += () if keypoints is None else keypoints.notes
    obtain(wanted_weights(settings.features.name, **settings.features.options))
    refuse_replacing(output, [path_a, path_b, *([] if points is None else [points])], _RESULTS)
    with output_folder(output, terminal, overwrite=overwrite):
        with terminal.status(f"Loading {settings.features.name}"):
            extractor = build_extractor(settings.features.name, **settings.features.options)
        if isinstance(extractor, LabelReader):
            raise UsageError(
                "These features are learned from a label and match no pictures.", "Choose another --config."
            )
        features_a, features_b = features_of_pair(a, b, extractor, settings)
        sides = _Side(a, features_a), _Side(b, features_b)
        found: list[str] = []
        if keypoints is not None:
            assert isinstance(keypoints.label, Keypoints)
            found.append(_write_points(output, *sides, keypoints.label, terminal))
        if dense:
            found.append(_write_dense(output, *sides, terminal))
        terminal.notes(found)
        record = {
            "command": "match",
            **settings_record(resolved),
            "versions": versions(),
            "pictures": [str(path.absolute()) for path in (path_a, path_b)],
            "points": None if points is None else str(points.absolute()),
            "device": str(getattr(extractor, "device", "unknown")),
            "notes": [*notes, *found],
            "seconds": round(time.monotonic() - start, 3),
        }
        terminal.result(f"  {write_run_record(output, record)}")


@dataclass(frozen=True)
class _Side:
    """One picture and its features."""

    pixels: UInt8[ndarray, "h w 3"]
    features: Float[Tensor, "c r s"]

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) in pixels, and in cells."""
        height, width = self.pixels.shape[:2]
        return (height, width), (int(self.features.shape[1]), int(self.features.shape[2]))


def features_of_pair(
    a: PictureA, b: PictureB, extractor: FeatureExtractor, settings: Settings
) -> tuple[Float[Tensor, "c r s"], Float[Tensor, "c p q"]]:
    """Return the features of two pictures of any size, each on the grid of its own working size.

    Both are padded to one canvas, so that one basis is fitted to the two; the cells of the padding are removed.
    """
    sizes = []
    for height, width in (a.shape[:2], b.shape[:2]):
        check_fit((height, width), extractor, settings, masks=False)
        sizes.append(working_size((height, width), multiple=extractor.multiple, **settings.video.sizing))
    canvas = (max(height for height, _ in sizes), max(width for _, width in sizes))
    images = torch.stack(
        [to_tensor(padded(resize_frame(picture, size), canvas)) for picture, size in zip((a, b), sizes, strict=True)]
    )
    fitted = anchored(extractor, images, [0, 0])
    parts = []
    for image, size in zip(images, sizes, strict=True):
        rows, columns = grid_size(size, extractor.stride)
        features = check_finite(fitted(image[None], indices=[0]), fitted, [0])
        parts.append(features[0, :, :rows, :columns].float())
    return parts[0], parts[1]


def _write_points(output: Path, a: _Side, b: _Side, keypoints: Keypoints, terminal: Terminal) -> str:
    chosen = np.flatnonzero(keypoints.present)
    names = [keypoints.names[i] for i in chosen]
    positions = keypoints.positions[chosen].astype(np.float64)
    cells = torch.from_numpy(pixels_to_grid(positions, *a.sizes)).to(a.features)
    matches = match_points(a.features, cells, b.features)
    places = grid_to_pixels(matches.positions.cpu().double().numpy(), *b.sizes)
    cosine, mutual = matches.cosine.cpu().double().numpy(), matches.mutual.cpu().numpy()
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "a": [round(float(value), 2) for value in position],
            "b": [round(float(value), 2) for value in place],
            "cosine": round(float(value), 4),
            "mutual": bool(sure),
        }
        for name, position, place, value, sure in zip(names, positions, places, cosine, mutual, strict=True)
    ]
    document = {
        "version": 1,
        "coordinates": "pixels, x to the right, y down, (0, 0) the center of the top-left pixel",
        "mutual": f"the way back ends within {TOLERANCE} cells of the point",
        "cell": {"a": _cell(a), "b": _cell(b)},
        "points": rows,
    }
    write_json(output / "correspondences.json", document)
    write_png(output / "lines.png", draw_lines(a.pixels, b.pixels, positions, places, cosine, mutual))
    maps = similarity_maps(a.features, cells, b.features).cpu().double().numpy()
    (output / HEAT).mkdir(exist_ok=True)
    written = [output / "correspondences.json", output / "lines.png"]
    for number, (name, similarity, place) in enumerate(zip(names, maps, places, strict=True), start=1):
        plain = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name)
        written.append(output / HEAT / f"{number:02d}_{plain}.png")
        write_png(written[-1], draw_heat(b.pixels, similarity, place))
    return _summary("points", mutual, cosine, written, terminal)


def _write_dense(output: Path, a: _Side, b: _Side, terminal: Terminal) -> str:
    matches, grid = match_cells(a.features, b.features), a.sizes[1]
    places = grid_to_pixels(matches.positions.cpu().double().numpy(), *b.sizes).reshape(*grid, 2)
    mutual = matches.mutual.cpu().numpy().reshape(grid)
    cosine = matches.cosine.cpu().numpy().reshape(grid)
    rows, columns = np.indices(grid)
    own = grid_to_pixels(np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64), *a.sizes)
    own = own.reshape(*grid, 2).astype(np.float32)
    with atomic_path(output / "dense.npz") as temporary:
        np.savez_compressed(
            temporary,
            x=places[..., 0].astype(np.float32),
            y=places[..., 1].astype(np.float32),
            a_x=own[..., 0],
            a_y=own[..., 1],
            cosine=cosine.astype(np.float32),
            mutual=mutual,
        )
    write_png(output / "dense.png", draw_wheel(a.pixels, b.pixels, places, mutual))
    return _summary("cells", mutual, cosine, [output / "dense.npz", output / "dense.png"], terminal)


def _summary(name: str, mutual: ndarray, cosine: ndarray, written: Sequence[Path], terminal: Terminal) -> str:
    """Print the written files and return a sentence on the matches."""
    for path in written:
        terminal.result(f"  {path}")
    share, similarity = float(mutual.mean()), float(cosine.mean())
    sentence = f"Of the {name} of A {share:.0%} match both ways, with a mean cosine of {similarity:.2f}."
    if share < LOW_SHARE or similarity < LOW_COSINE:
        sentence += " That is weak: unrelated pictures can reach it. Check it before you use it."
    return sentence


def _cell(side: _Side) -> list[float]:
    """Return width and height of a cell in pixels."""
    (height, width), (rows, columns) = side.sizes
    return [round(width / columns, 3), round(height / rows, 3)]
