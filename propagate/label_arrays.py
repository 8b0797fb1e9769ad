"""Arrays that people give as labels: checked, and converted where nothing is lost by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from propagate.errors import InputError

_LARGEST_ID = 255  # void; objects are below


def checked_ids(values: Any) -> UInt8[ndarray, "h w"]:
    """Return the object ids of a mask as a copy of its own.

    Args:
        values: (H, W) array of booleans (True is object 1) or of integers from 0 to 255.

    Raises:
        InputError: another type, shape or range.
    """
    array = _array(values, "A mask", "(height, width) array of object ids")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"A mask of shape {array.shape} was given; wanted: (height, width).", _flatter(array.shape))
    if array.dtype == np.uint8:
        return np.array(array, order="C")
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"A mask of {array.dtype} was given; wanted: whole numbers 0 to {_LARGEST_ID}, or booleans.",
            "Convert object ids with mask.astype(numpy.uint8), a probability with mask > 0.5.",
        )
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest > _LARGEST_ID:
        raise InputError(
            f"A mask with values from {lowest} to {highest} was given; wanted: 0 to {_LARGEST_ID}.",
            "0 is background, 1 to 254 are objects, 255 is void: number the objects anew.",
        )
    return array.astype(np.uint8)


def checked_absent(values: Any, ids: UInt8[ndarray, "h w"]) -> frozenset[int]:
    """Return objects that are said not to be in a mask.

    Args:
        values: their ids, from 1 to 254.
        ids: of the mask.

    Raises:
        InputError: no such ids, or one that is in the mask.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"Absent objects are {_kind(values)}; wanted: their ids.", "For example: absent={2, 3}.")
    found = list(values)
    for value in found:
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not 0 < value < _LARGEST_ID or (ids == value).any():
            raise InputError(
                f"Object {value!r} cannot be absent: it is in the mask, or is no object.",
                "Objects have ids from 1 to 254; erase one from the mask, or do not call it absent.",
            )
    return frozenset(map(int, found))


def checked_names(values: Any) -> tuple[str, ...]:
    """Return joint names: at least one, each a text of its own.

    Raises:
        InputError: none, no text, or a name twice.
    """
    if isinstance(values, str) or not isinstance(values, Sequence | ndarray):
        raise InputError(f"The names of keypoints are {_kind(values)}.", 'Give a sequence of text: ("nose", "tail").')
    names = tuple(values)
    if not names:
        raise InputError("Keypoints without a joint were given.", "Give at least one name and its position.")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"A joint's name is {name!r}.", "Give each joint a name of at least one letter.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two joints have the name {twice!r}.", "Give each joint a name of its own.")
    return tuple(map(str, names))  # numpy.str_ is text, too


def checked_positions(values: Any, names: tuple[str, ...]) -> Float32[ndarray, "j 2"]:
    """Return the positions of joints as a copy of its own.

    Args:
        values: (J, 2) array of numbers, (x, y) in pixels; both NaN: absent.
        names: of the J joints.

    Raises:
        InputError: another type or shape, an infinite number, or one of x and y without the other.
    """
    given = _array(values, "Positions of keypoints", "(joints, 2) array of x and y")
    if given.shape != (len(names), 2):
        raise InputError(
            f"Positions of shape {given.shape} were given for {len(names)} names; wanted: ({len(names)}, 2).",
            "Give one row (x, y) for each name.",
        )
    positions = _floats(given, "Positions")
    known = np.isfinite(positions)
    if known.all():
        return positions
    missing = np.isnan(positions)
    for name, row, found, absent in zip(names, positions, known, missing, strict=True):
        if not (found.all() or absent.all()):
            raise InputError(
                f"The position of {name!r} is ({row[0]}, {row[1]}); wanted: two finite numbers.",
                "Where the joint is absent both are NaN.",
            )
    return positions


def checked_confidence(values: Any, names: tuple[str, ...]) -> Float32[ndarray, " j"]:
    """Return the confidence of joints as a copy of its own.

    Args:
        values: (J,) array of numbers from 0 to 1.
        names: of the J joints.

    Raises:
        InputError: another type, length or range, or NaN.
    """
    given = _array(values, "The confidence of keypoints", "(joints,) array of numbers from 0 to 1")
    if given.shape != (len(names),):
        raise InputError(
            f"A confidence of shape {given.shape} was given for {len(names)} names; wanted: ({len(names)},).",
            "Give one number for each name, or leave it out.",
        )
    confidence = _floats(given, "A confidence")
    within = (confidence >= 0) & (confidence <= 1)  # false for NaN
    if not within.all():
        first = int(within.argmin())
        raise InputError(f"The confidence of {names[first]!r} is {confidence[first]}.", "It must lie in 0 to 1.")
    return confidence


def checked_skeleton(values: Any, joints: int) -> tuple[tuple[int, int], ...]:
    """Return bones as pairs of joint numbers.

    Args:
        values: pairs of integers from 0 to `joints` - 1.
        joints: how many there are.

    Raises:
        InputError: no pairs of such numbers.
    """
    bones = []
    for bone in _pairs(values):
        for joint in bone:
            whole = isinstance(joint, int | np.integer) and not isinstance(joint, bool)
            if not whole or not 0 <= joint < joints:
                raise InputError(
                    f"The skeleton has the bone {tuple(bone)!r}; wanted: joint numbers from 0 to {joints - 1}.",
                    "Count joints from 0, in the order of their names.",
                )
        bones.append((int(bone[0]), int(bone[1])))
    return tuple(bones)


def _pairs(values: Any) -> list[Sequence[Any]]:
    try:
        bones = [tuple(bone) for bone in values]
    except TypeError:
        bones = [()]
    if any(len(bone) != 2 for bone in bones):
        raise InputError(f"The skeleton is {_kind(values)}, not pairs of joints.", "For example: ((0, 1), (1, 2)).")
    return list(bones)


def _array(values: Any, what: str, wanted: str) -> ndarray:
    """The values as an array, where they are one or nested lists of numbers."""
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{what} as a masked array was given; wanted: {wanted}.", "Fill it: array.filled(0).")
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except (ValueError, OverflowError, TypeError):
            raise InputError(f"{what}: the lists do not form an array; wanted: {wanted}.", "Give equal rows.") from None
    if isinstance(values, str | Path):
        raise InputError(
            f"{what}: the text {str(values)!r} was given; wanted: {wanted}.",
            "Read a file with propagate.read_mask or propagate.read_keypoints.",
        )
    if not isinstance(values, ndarray):
        raise InputError(f"{what}: {_kind(values)} was given; wanted: {wanted}.", "Convert it to a NumPy array.")
    return values


def _floats(values: ndarray, what: str) -> Float32[ndarray, "..."]:
    if values.dtype.kind not in "iuf":
        raise InputError(f"{what} of {values.dtype} were given; wanted: numbers.", "Write NaN where a joint is absent.")
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused as that
        return np.array(values, np.float32, order="C")


def _kind(values: Any) -> str:
    name = type(values).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _flatter(shape: tuple[int, ...]) -> str:
    """How to get a mask from an array of another shape."""
    if len(shape) == 3 and shape[2] == 1:
        return "Leave out the last axis: mask[..., 0]."
    if len(shape) == 3 and shape[0] == 1:
        return "Leave out the first axis: mask[0]."
    if len(shape) == 3 and shape[2] in (3, 4):
        return "Of a color picture, give ids instead of colors; propagate.read_mask reads one from a file."
    if len(shape) == 3:
        return "Merge layers into one array that holds each object's number where the object is."
    return "Give one number per pixel."
