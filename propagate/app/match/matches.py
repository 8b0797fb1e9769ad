"""What `propagate match` does: features of two pictures, their matches, and the files that show them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from propagate.app.running.outputs import output_folder, refuse_replacing
from propagate.app.running.record import settings_record
from propagate.app.running.references import read_one_picture
from propagate.app.terminal.console import Terminal
from propagate.errors import UsageError
from propagate.features import FeatureExtractor, build_extractor, wanted_weights
from propagate.features.anchoring import anchored
from propagate.features.finite import check_finite
from propagate.features.learned_prompts.label_reader import LabelReader
from propagate.files.atomic import atomic_path
from propagate.formats import read_keypoints_file, write_run_record
from propagate.formats.output.folder import HEAT
from propagate.formats.output.run_record import json_text
from propagate.geometry import grid_size, grid_to_pixels, pixels_to_grid, resize_frame, to_tensor, working_size
from propagate.planning.fitting import check_fit
from propagate.provenance import versions
from propagate.references.crop import padded
from propagate.references.labels import LOW_COSINE, LOW_SHARE
from propagate.references.match_pictures import draw_heat, draw_lines, draw_wheel
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
    """Match two pictures and write what was found.

    Writes correspondences.json, lines.png and heat/01_NAME.png per point (with `points`), dense.npz and dense.png (with
    `dense`), run.json.

    Args:
        path_a, path_b: the pictures.
        points: keypoint file of A.
        output: folder of the results.
        resolved: settings and where they came from.
        terminal: where to print.
        dense: match every cell of A.
        overwrite: accept a folder that holds something.

    Raises:
        UsageError: neither points nor dense, an extractor that cannot match pictures, or a result that would replace
            what is read.
        InputError: a file that cannot be read, or points that were annotated at another size.
    """
    if points is None and not dense:
        raise UsageError("There is nothing to match.", "Give --points FILE, or --dense for every cell.")
    settings, start = resolved.settings, time.monotonic()
    (a, notes_a), (b, notes_b) = read_one_picture(path_a, "The picture"), read_one_picture(path_b, "The picture")
    keypoints = None if points is None else read_keypoints_file(points, frame_size=(a.shape[0], a.shape[1]))
    notes = [*notes_a, *notes_b, *(() if keypoints is None else keypoints.notes)]
    terminal.notes(notes)
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
        found: list[str] = []
        if keypoints is not None:
            found.append(_write_points(output, a, b, keypoints.keypoints, features_a, features_b, terminal))
        if dense:
            found.append(_write_dense(output, a, b, features_a, features_b, terminal))
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
        terminal.result("  " + str(write_run_record(output, record)))


def features_of_pair(
    a: PictureA, b: PictureB, extractor: FeatureExtractor, settings: Settings
) -> tuple[Float[Tensor, "c r s"], Float[Tensor, "c p q"]]:
    """Features of two pictures of any sizes, each on the grid over its own working size.

    Both go to the top left of one canvas, their borders repeated, so that a basis can be fitted on the two together;
    the cells beyond a picture are left out again.
    """
    sizes = []
    for picture in (a, b):
        size = (picture.shape[0], picture.shape[1])
        check_fit(size, extractor, settings, masks=False)
        sizes.append(working_size(size, multiple=extractor.multiple, **settings.video.sizing))
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


def _write_points(
    output: Path, a: PictureA, b: PictureB, keypoints: Keypoints, ours: Tensor, theirs: Tensor, terminal: Terminal
) -> str:
    chosen = np.flatnonzero(keypoints.present)
    names = [keypoints.names[i] for i in chosen]
    positions = keypoints.positions[chosen].astype(np.float64)
    cells = torch.from_numpy(pixels_to_grid(positions, a.shape[:2], _grid(ours))).to(ours)
    matches = match_points(ours, cells, theirs)
    places = grid_to_pixels(matches.positions.cpu().double().numpy(), b.shape[:2], _grid(theirs))
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
        "cell": {"a": _cell(a, ours), "b": _cell(b, theirs)},
        "points": rows,
    }
    path = output / "correspondences.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(document), encoding="utf-8")
    terminal.result(f"  {path}")
    _write_picture(output / "lines.png", draw_lines(a, b, positions, places, cosine, mutual), terminal)
    maps = similarity_maps(ours, cells, theirs).cpu().double().numpy()
    (output / HEAT).mkdir(exist_ok=True)
    for number, (name, similarity, place) in enumerate(zip(names, maps, places, strict=True), start=1):
        plain = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name)
        _write_picture(output / HEAT / f"{number:02d}_{plain}.png", draw_heat(b, similarity, place), terminal)
    return _told("points", float(mutual.mean()), float(cosine.mean()))


def _write_dense(output: Path, a: PictureA, b: PictureB, ours: Tensor, theirs: Tensor, terminal: Terminal) -> str:
    matches, grid = match_cells(ours, theirs), _grid(ours)
    places = grid_to_pixels(matches.positions.cpu().double().numpy(), b.shape[:2], _grid(theirs)).reshape(*grid, 2)
    mutual = matches.mutual.cpu().numpy().reshape(grid)
    cosine = matches.cosine.cpu().numpy().reshape(grid)
    rows, columns = np.indices(grid)
    own = grid_to_pixels(np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64), a.shape[:2], grid)
    own = own.reshape(*grid, 2).astype(np.float32)
    path = output / "dense.npz"
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            x=places[..., 0].astype(np.float32),
            y=places[..., 1].astype(np.float32),
            a_x=own[..., 0],
            a_y=own[..., 1],
            cosine=cosine.astype(np.float32),
            mutual=mutual,
        )
    terminal.result(f"  {path}")
    _write_picture(output / "dense.png", draw_wheel(a, b, places, mutual), terminal)
    return _told("cells", float(mutual.mean()), float(cosine.mean()))


def _told(what: str, share: float, cosine: float) -> str:
    sentence = f"Of the {what} of A {share:.0%} match both ways, with a mean cosine of {cosine:.2f}."
    if share < LOW_SHARE or cosine < LOW_COSINE:
        sentence += " That is weak: pictures that have nothing in common can reach it. Look before you use it."
    return sentence


def _write_picture(path: Path, pixels: PictureA, terminal: Terminal) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    terminal.result(f"  {path}")


def _grid(features: Tensor) -> tuple[int, int]:
    return int(features.shape[1]), int(features.shape[2])


def _cell(picture: PictureA, features: Tensor) -> list[float]:
    """Width and height of a cell, in pixels of the picture."""
    rows, columns = _grid(features)
    return [round(picture.shape[1] / columns, 3), round(picture.shape[0] / rows, 3)]
