"""Keypoints as COCO JSON: images, annotations, categories (https://cocodataset.org/#format-data).

COCO's integer coordinates are pixel centers, as here. Two keys are extensions that other tools ignore: `frame_id` of an
image, its frame number as in COCO-VID, and `keypoint_scores` of an annotation, the confidence of each joint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ValidationError

from propagate.errors import InputError
from propagate.formats.keypoints.poses import FORMATS, Encoder, Points, Pose, invalid, keypoints_of
from propagate.printable import printable
from propagate.types import Keypoints, Prediction

_DIGITS = re.compile(r"(?<!\d)\d{1,18}(?!\d)")  # longer ones are not frame numbers
TOP_KEYS = ("images", "annotations", "categories")

_T = TypeVar("_T")
_List = Annotated[list[_T], BeforeValidator(lambda values: [] if values is None else values)]  # tools write null


class _Image(BaseModel):
    id: int | str
    file_name: str | None = None
    width: int | None = None
    height: int | None = None
    frame_id: int | None = None


class _Annotation(BaseModel):
    id: int | str | None = None
    image_id: int | str
    category_id: int | str
    keypoints: _List[float | None] = []
    keypoint_scores: list[float | None] | None = None
    iscrowd: bool | None = None


class _Category(BaseModel):
    id: int | str
    name: str | None = None
    keypoints: _List[str] = []
    skeleton: _List[tuple[int, int]] = []


class _Coco(BaseModel):
    images: _List[_Image]
    annotations: _List[_Annotation]
    categories: _List[_Category]


_KNOWN = {
    "": TOP_KEYS,
    "images": tuple(_Image.model_fields),
    "annotations": tuple(_Annotation.model_fields),
    "categories": tuple(_Category.model_fields),
}


def poses_of_coco(document: object, path: Path) -> list[Pose]:
    """Return the poses of a parsed file, one for each annotation with a visible or occluded keypoint.

    A frame's number is the image's `frame_id`, else the last number in its file name that differs from image to image,
    else its place in the list; a single image without `frame_id` has none.
    """
    try:
        coco = _Coco.model_validate(document)
    except ValidationError as error:
        raise invalid(path, error, _KNOWN, document) from error
    _refuse_twice([image.id for image in coco.images], "images", path)
    _refuse_twice([category.id for category in coco.categories], "categories", path)
    # tools write one id as a number here and as text there
    images = {str(image.id): image for image in coco.images}
    frames = dict(zip(images, _frame_numbers(coco.images), strict=True))
    categories = {str(category.id): category for category in coco.categories}
    poses = []
    for number, annotation in enumerate(coco.annotations):
        if not annotation.keypoints:
            continue  # boxes and segmentations may be in the same file
        where = f"{path}: annotations[{number}]"
        image_id, category_id = str(annotation.image_id), str(annotation.category_id)
        if image_id not in images or category_id not in categories:
            raise InputError(f"{where} belongs to an image or a category that is not in the file.", FORMATS)
        category, image = categories[category_id], images[image_id]
        keypoints, notes = _keypoints(annotation, category, where, path)
        if keypoints.present.any() or notes:
            size = None if image.height is None or image.width is None else (image.height, image.width)
            picture = _stem(image) if image.frame_id is None else None
            crowd = bool(annotation.iscrowd)
            poses.append(Pose(keypoints, frames[image_id], annotation.id, size, picture, crowd, notes))
    return poses


def _keypoints(
    annotation: _Annotation, category: _Category, where: str, path: Path
) -> tuple[Keypoints, tuple[str, ...]]:
    """Return the joints of one annotation, and notes about them."""
    names, flat = category.keypoints, annotation.keypoints
    scores: Sequence[float | None] = annotation.keypoint_scores or [1.0] * len(names)
    if len(flat) != 3 * len(names) or len(scores) != len(names):
        raise InputError(
            f"{where} has {len(flat)} values in 'keypoints' for the {len(names)} joints of its category.",
            "There must be x, y and visibility for each.",
        )
    if len(set(names)) < len(names):
        raise InputError(
            f"{path}: a joint is named twice in the category {category.name or category.id!r}.",
            "Give each joint a name of its own.",
        )
    if any(not 1 <= joint <= len(names) for bone in category.skeleton for joint in bone):
        raise InputError(
            f"{path}: the skeleton of the category {category.name or category.id!r} names a joint that is not there.",
            "Count from 1.",
        )
    points: dict[str, tuple[float, float, float]] = {}
    hidden, unplaced = [], []
    for name, *numbers in zip(names, flat[0::3], flat[1::3], flat[2::3], scores, strict=True):
        x, y, visible, score = (np.nan if number is None else number for number in numbers)
        if visible in (1, 2):  # 1 is occluded, but placed
            points[name] = (x, y, score)
            unplaced += [name] if np.isnan(x) and np.isnan(y) else []
        elif visible == 0 or np.isnan(visible):
            hidden += [name] if abs(x) + abs(y) > 0 else []
        else:
            raise InputError(f"{where}: the visibility of {name!r} is {visible}.", "It is 0 (absent), 1 or 2.")
    odd = {"have a position, but visibility 0": hidden, "are visible, but have no position": unplaced}
    notes = tuple(f"{where}: absent, since they {cause}: {', '.join(n)}." for cause, n in odd.items() if n)
    return keypoints_of(points, names, [(start - 1, end - 1) for start, end in category.skeleton], path), notes


def _refuse_twice(ids: Sequence[int | str], what: str, path: Path) -> None:
    texts = [str(i) for i in ids]
    if len(set(texts)) < len(texts):
        twice = next(i for i, text in zip(ids, texts, strict=True) if texts.count(text) > 1)
        raise InputError(f"{path}: two of the {what} have the id {twice!r}.", "Give each an id of its own.")


def _frame_numbers(images: Sequence[_Image]) -> list[int | None]:
    if len(images) == 1:
        return [images[0].frame_id]
    found = [_DIGITS.findall(_stem(image) or "")[::-1] for image in images]
    columns = ([int(digits) for digits in column] for column in zip(*found, strict=False))
    last = [int(digits[0]) if digits else place for place, digits in enumerate(found)]
    counted = next((column for column in columns if len(set(column)) == len(column)), last)
    return [number if image.frame_id is None else image.frame_id for image, number in zip(images, counted, strict=True)]


def _stem(image: _Image) -> str | None:
    return None if image.file_name is None else PureWindowsPath(image.file_name).stem  # splits at both slashes


class CocoEncoder(Encoder):
    """See `Encoder`. Keeps the number and name of each frame until the end."""

    def __init__(self) -> None:
        self._frames: dict[int, str] = {}

    def begin(self, keypoints: Keypoints, size: tuple[int, int]) -> str:
        """Return the category and the start of the annotations."""
        self._size = size
        category = {
            "id": 1,
            "name": "object",
            "supercategory": "object",
            "keypoints": list(keypoints.names),
            "skeleton": [[start + 1, end + 1] for start, end in keypoints.skeleton],
        }
        return f'{{\n"categories": [{json.dumps(category, ensure_ascii=False)}],\n"annotations": [\n'

    def frame(self, prediction: Prediction, points: Points) -> str:
        """Return the annotation of one frame; visibility 0 absent, 2 present."""
        assert prediction.keypoints is not None
        box = _box(prediction.keypoints)
        annotation = {
            "id": len(self._frames) + 1,
            "image_id": prediction.index,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": box,
            "area": round(box[2] * box[3], 2),
            "num_keypoints": sum(point is not None for point in points.values()),
            "keypoints": [v for point in points.values() for v in ((*point[:2], 2) if point else (0, 0, 0))],
            "keypoint_scores": [point[2] if point else 0.0 for point in points.values()],
        }
        self._frames[prediction.index] = printable(prediction.name or f"{prediction.index:05d}")
        return json.dumps(annotation, allow_nan=False)

    def end(self) -> str:
        """Return the images."""
        height, width = self._size
        images = (
            json.dumps({"id": i, "frame_id": i, "file_name": f"{name}.jpg", "width": width, "height": height})
            for i, name in self._frames.items()
        )
        return '\n],\n"images": [\n' + ",\n".join(images) + "\n]\n}\n"


def _box(keypoints: Keypoints) -> list[float]:
    """Return [left, top, width, height] around the joints that are present; zeros without any."""
    if not keypoints.present.any():
        return [0.0, 0.0, 0.0, 0.0]
    positions = keypoints.positions[keypoints.present].astype(np.float64)
    low, high = positions.min(0), positions.max(0)
    return [round(float(value), 2) + 0.0 for value in (*low, *(high - low))]  # -0.0 becomes 0.0
