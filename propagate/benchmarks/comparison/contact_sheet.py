"""Pictures of several results for one clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from propagate.formats import draw_keypoints, draw_mask
from propagate.types import Label, Mask

DIFFERENCE = "where they differ"
DISPUTED = (230, 97, 0)  # RGB of pixels where results differ
_PAPER, _INK, _FAINT, _BAND = (255, 255, 255), (20, 20, 20), (105, 105, 105), (24, 24, 24)
_GAP = 6
_TITLE, _HEADING, _NAME, _CAPTION = 24, 17, 21, 16  # heights of letters, in pixels
_MARGIN = 14


def fitted(frame_size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Fit a frame into a box of (height, width): same aspect, never enlarged, even, at least 2 a side."""
    scale = min(1.0, box[0] / frame_size[0], box[1] / frame_size[1])
    height, width = (max(2, round(side * scale / 2) * 2) for side in frame_size)
    return height, width


def drawn(
    pixels: UInt8[ndarray, "h w 3"], label: Label, size: tuple[int, int], *, names: bool
) -> UInt8[ndarray, "y x 3"]:
    """Draw a label over its frame, resized to (height, width) first so that lines and dots keep their width."""
    small = _resized(pixels, size)
    if isinstance(label, Mask):
        return draw_mask(small, _resized_mask(label, size))
    scale = np.array([size[1] / pixels.shape[1], size[0] / pixels.shape[0]], np.float32)
    moved = replace(label, positions=(label.positions + np.float32(0.5)) * scale - np.float32(0.5))
    return draw_keypoints(small, moved, names=names)


def difference(
    pixels: UInt8[ndarray, "h w 3"], masks: Sequence[Mask], size: tuple[int, int]
) -> UInt8[ndarray, "y x 3"]:
    """Draw the frame in gray at (height, width), with pixels in orange where the masks differ."""
    ids = np.stack([_resized_mask(mask, size).ids for mask in masks])
    gray = cv2.cvtColor(_resized(pixels, size), cv2.COLOR_RGB2GRAY)
    picture = np.repeat((gray // 2 + 60)[..., None], 3, axis=2).astype(np.uint8)
    picture[(ids != ids[0]).any(0)] = DISPUTED
    return picture


def side_by_side(tiles: Mapping[str, UInt8[ndarray, "h w 3"]], when: str) -> UInt8[ndarray, "y x 3"]:
    """Arrange pictures of one size, by name, in rows of up to three; `when` stands beside the first name."""
    pictures = list(tiles.values())
    height, width, _ = pictures[0].shape
    columns = len(tiles) if len(tiles) <= 3 else int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    size = max(12, min(22, width // 16))
    band = size + 10 + size % 2
    canvas = Image.new("RGB", (columns * width, rows * (height + band)), _BAND)
    pen = ImageDraw.Draw(canvas)
    for number, (name, picture) in enumerate(tiles.items()):
        left, top = number % columns * width, number // columns * (height + band)
        space = width - 16
        if number == 0:
            space -= int(pen.textlength(when, _font(size - 2))) + 12
            pen.text((left + width - 8, top + 4), when, (190, 190, 190), _font(size - 2), anchor="ra")
        pen.text((left + 8, top + 4), _shortened(name, size, space), (255, 255, 255), _font(size))
        canvas.paste(Image.fromarray(picture), (left, top + band))
    return np.asarray(canvas)


def contact_sheet(
    title: str,
    headings: Sequence[str],
    rows: Mapping[str, Sequence[UInt8[ndarray, "h w 3"]]],
    captions: Mapping[str, Sequence[str]],
    footer: Sequence[str],
) -> UInt8[ndarray, "y x 3"]:
    """Draw a table of pictures: a row per result, a column per frame.

    `rows` are pictures of one size by name, one per column, with `captions` left of them; `footer` is below all.
    """
    height, width, _ = next(iter(rows.values()))[0].shape
    texts = [(name, _NAME) for name in rows] + [(line, _CAPTION) for lines in captions.values() for line in lines]
    left = min(max(int(_font(size).getlength(text)) for text, size in texts), 320) + 2 * _MARGIN
    lines = 1 + max(len(captions.get(name, ())) for name in rows)
    tall = max(height, _NAME + 8 + (lines - 1) * (_CAPTION + 5)) + _GAP
    top = _MARGIN + _TITLE + 12 + _HEADING + 10
    page = [_font(_TITLE).getlength(title), *(_font(_CAPTION).getlength(line) for line in footer)]
    across = max(left + len(headings) * (width + _GAP), int(max(page)) + _MARGIN) + _MARGIN
    down = top + len(rows) * tall + _MARGIN + len(footer) * (_CAPTION + 6) + _MARGIN
    sheet = Image.new("RGB", (across, down), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _INK, _font(_TITLE))
    for column, heading in enumerate(headings):
        place = (left + column * (width + _GAP) + width // 2, top - 10 - _HEADING)
        pen.text(place, heading, _FAINT, _font(_HEADING), anchor="ma")
    for row, (name, pictures) in enumerate(rows.items()):
        y = top + row * tall
        pen.text((_MARGIN, y), _shortened(name, _NAME, left - 2 * _MARGIN), _INK, _font(_NAME))
        for number, line in enumerate(captions.get(name, ())):
            text = _shortened(line, _CAPTION, left - 2 * _MARGIN)
            pen.text((_MARGIN, y + _NAME + 8 + number * (_CAPTION + 5)), text, _FAINT, _font(_CAPTION))
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + column * (width + _GAP), y))
    for number, line in enumerate(footer):
        y = top + len(rows) * tall + _MARGIN + number * (_CAPTION + 6)
        pen.text((_MARGIN, y), line, _FAINT, _font(_CAPTION))
    return np.asarray(sheet)


def _resized(pixels: UInt8[ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[ndarray, "y x 3"]:
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    return Mask(np.asarray(cv2.resize(mask.ids, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8))


def _shortened(text: str, size: int, space: float) -> str:
    """Cut off the end of a text that is too long for the space."""
    if _font(size).getlength(text) <= space:
        return text
    while text and _font(size).getlength(text + "...") > space:
        text = text[:-1]
    return text + "..."


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
