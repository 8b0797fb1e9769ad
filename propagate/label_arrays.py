"""Validate arrays given as labels, and convert them where nothing is lost."""

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
    """Return a copy of the ids of a mask, or raise InputError: (H, W) booleans (True is object 1) or integers."""
    array = _array(values, "A mask", "(height, width) array of object ids")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"A mask has shape {array.shape}; expected (height, width).", _shape_remedy(array.shape))
    if array.dtype == np.uint8:
        return np.array(array, order="C")
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"A mask has type {array.dtype}; expected integers from 0 to {_LARGEST_ID}, or booleans.",
            "Convert object ids with mask.astype(numpy.uint8), a probability with mask > 0.5.",
        )
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest > _LARGEST_ID:
        raise InputError(
            f"A mask has values from {lowest} to {highest}; expected 0 to {_LARGEST_ID}.",
            "0 is background, 1 to 254 are objects, 255 is void: renumber the objects.",
        )
    return array.astype(np.uint8)


def checked_absent(values: Any, ids: UInt8[ndarray, "h w"]) -> frozenset[int]:
    """Return the ids, from 1 to 254, of objects declared absent from a mask. Raises InputError if one is in it."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"Absent objects are {_kind(values)}; expected their ids.", "For example: absent={2, 3}.")
    absent = list(values)
    for value in absent:
        if not _is_int(value) or not 0 < value < _LARGEST_ID or (ids == value).any():
            raise InputError(
                f"Object {value!r} cannot be absent: it is in the mask, or is no object.",
                "Objects have ids from 1 to 254; erase one from the mask, or do not call it absent.",
            )
    return frozenset(map(int, absent))


def checked_names(values: Any) -> tuple[str, ...]:
    """Return joint names: at least one, all text, no duplicates. Raises InputError otherwise."""
    if isinstance(values, str) or not isinstance(values, Sequence | ndarray):
        raise InputError(f"The names of keypoints are {_kind(values)}.", 'Give a sequence of text: ("nose", "tail").')
    names = tuple(values)
    if not names:
        raise InputError("The keypoints have no joint.", "Give at least one name and its position.")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"A joint's name is {name!r}.", "Give each joint a name of at least one letter.")
        if names.count(name) > 1:
            raise InputError(f"Two joints have the name {name!r}.", "Give each joint a different name.")
    return tuple(map(str, names))  # numpy.str_ is text, too


def checked_positions(values: Any, names: tuple[str, ...]) -> Float32[ndarray, "j 2"]:
    """Return a copy of positions, or raise InputError: (J, 2) numbers, (x, y) in pixels; both NaN if absent."""
    array = _array(values, "Positions of keypoints", "(joints, 2) array of x and y")
    if array.shape != (len(names), 2):
        raise InputError(
            f"The positions have shape {array.shape} for {len(names)} names; expected ({len(names)}, 2).",
            "Give one row (x, y) for each name.",
        )
    positions = _floats(array, "Positions")
    for name, row in zip(names, positions, strict=True):
        if not (np.isfinite(row).all() or np.isnan(row).all()):
            raise InputError(
                f"The position of {name!r} is ({row[0]}, {row[1]}); expected two finite numbers.",
                "If the joint is absent, both are NaN.",
            )
    return positions


def checked_confidence(values: Any, names: tuple[str, ...]) -> Float32[ndarray, " j"]:
    """Return a copy of the confidence of joints, or raise InputError: (J,) numbers from 0 to 1."""
    array = _array(values, "The confidence of keypoints", "(joints,) array of numbers from 0 to 1")
    if array.shape != (len(names),):
        raise InputError(
            f"The confidence has shape {array.shape} for {len(names)} names; expected ({len(names)},).",
            "Give one number for each name, or leave it out.",
        )
    confidence = _floats(array, "A confidence")
    for name, value in zip(names, confidence, strict=True):
        if not 0 <= value <= 1:  # or NaN
            raise InputError(f"The confidence of {name!r} is {value}.", "It must lie in 0 to 1.")
    return confidence


def checked_skeleton(values: Any, joints: int) -> tuple[tuple[int, int], ...]:
    """Return bones as pairs of joint numbers from 0 to `joints` - 1. Raises InputError otherwise."""
    try:
        bones = [tuple(bone) for bone in values]
    except TypeError:
        bones = [()]
    if any(len(bone) != 2 for bone in bones):
        raise InputError(f"The skeleton is {_kind(values)}, not pairs of joints.", "For example: ((0, 1), (1, 2)).")
    for bone in bones:
        if not all(_is_int(joint) and 0 <= joint < joints for joint in bone):
            raise InputError(
                f"The skeleton has the bone {bone!r}; expected joint numbers from 0 to {joints - 1}.",
                "Count joints from 0, in the order of their names.",
            )
    return tuple((int(start), int(end)) for start, end in bones)


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _array(values: Any, name: str, expected: str) -> ndarray:
    """Return an array, or nested lists of numbers as an array."""
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array; expected {expected}.", "Fill it: array.filled(0).")
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except (ValueError, OverflowError, TypeError):
            raise InputError(
                f"{name}: the lists do not form an array; expected {expected}.", "Give equal rows."
            ) from None
    if isinstance(values, str | Path):
        raise InputError(
            f"{name} cannot be the text {str(values)!r}; expected {expected}.",
            "Read a file with propagate.read_mask or propagate.read_keypoints.",
        )
    if not isinstance(values, ndarray):
        raise InputError(f"{name} cannot be {_kind(values)}; expected {expected}.", "Convert it to a NumPy array.")
    return values


def _floats(values: ndarray, name: str) -> Float32[ndarray, "..."]:
    if values.dtype.kind not in "iuf":
        raise InputError(
            f"{name} cannot have type {values.dtype}; expected numbers.", "Write NaN where a joint is absent."
        )
    with np.errstate(over="ignore"):  # beyond float32: infinite, which is rejected later
        return np.array(values, np.float32, order="C")


def _kind(values: Any) -> str:
    name = type(values).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _shape_remedy(shape: tuple[int, ...]) -> str:
    """How to turn an array of another shape into a mask."""
    if len(shape) == 3 and shape[2] == 1:
        return "Leave out the last axis: mask[..., 0]."
    if len(shape) == 3 and shape[0] == 1:
        return "Leave out the first axis: mask[0]."
    if len(shape) == 3 and shape[2] in (3, 4):
        return "Convert colors to ids; propagate.read_mask reads a color picture from a file."
    if len(shape) == 3:
        return "Merge the layers into one array of object ids."
    return "Give one number per pixel."
