"""Draw masks and keypoints over a picture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from propagate.formats.palette import BRIGHT_PALETTE
from propagate.types import BACKGROUND, VOID, Keypoints, Mask

_HOLLOW_BELOW = 0.5  # confidence of joints that are drawn as rings
_SHIFT = 4  # OpenCV draws at a sixteenth of a pixel
_CONTOUR_ALPHA = 0.9
_OUTLINE = (16, 16, 16)
Pixels = UInt8[ndarray, "h w 3"]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def draw_mask(pixels: Pixels, mask: Mask, *, alpha: float = 0.45) -> Pixels:
    """Return a copy of an RGB picture with tinted objects and lines along the inside of their borders.

    Background and void are unchanged. `alpha` is the weight of the tint in [0, 1].
    """
    if mask.size != pixels.shape[:2]:
        raise ValueError(f"a mask of size {mask.size} does not lie over pixels of shape {pixels.shape}")
    ids = np.where(mask.ids == VOID, np.uint8(BACKGROUND), mask.ids)
    thickness = max(1, round(min(mask.size) / 400))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thickness + 1, 2 * thickness + 1))
    inside = ids != BACKGROUND
    contour = inside & ((cv2.erode(ids, around) != ids) | (cv2.dilate(ids, around) != ids))
    drawn = pixels.copy()
    for where, weight in ((inside & ~contour, alpha), (contour, max(alpha, _CONTOUR_ALPHA))):
        colors = BRIGHT_PALETTE[ids[where]].astype(np.float32)
        drawn[where] = np.round(pixels[where] * np.float32(1 - weight) + colors * np.float32(weight)).astype(np.uint8)
    return drawn


def draw_keypoints(pixels: Pixels, keypoints: Keypoints, *, names: bool = True) -> Pixels:
    """Return a copy of an RGB picture with bones, joints and names, in sizes that fit the picture.

    Joints with a confidence below 0.5 are rings; absent ones are omitted, with their bones and names. A name is placed
    on the side of its joint that faces away from the middle of the pose, or elsewhere if that place is taken.
    """
    drawn = pixels.copy()
    present = np.flatnonzero(keypoints.present)
    if not len(present):
        return drawn
    height, width, _ = pixels.shape
    unit = min(height, width)
    radius, line = max(2.5, unit / 130), max(1, round(unit / 280))
    colors = _joint_colors(len(keypoints.names))
    # A joint far outside would overflow OpenCV's fixed-point coordinates; clipped, it is invisible, too.
    reach = np.array([width, height], np.float32)
    positions = np.clip(keypoints.positions, -reach, 2 * reach)
    fixed = {int(i): tuple(int(v) for v in np.round(positions[i] * (1 << _SHIFT))) for i in present}

    for start, end in keypoints.skeleton:
        if start in fixed and end in fixed:
            color = tuple((a + b) // 2 for a, b in zip(colors[start], colors[end], strict=True))
            cv2.line(drawn, fixed[start], fixed[end], _OUTLINE, line + 2, cv2.LINE_AA, _SHIFT)
            cv2.line(drawn, fixed[start], fixed[end], color, line, cv2.LINE_AA, _SHIFT)
    if names:
        shown = [keypoints.names[joint] for joint in fixed]
        _draw_names(drawn, shown, positions[present], radius, letters=max(10, round(unit / 40)))
    size, rim = round(radius * (1 << _SHIFT)), 1 << _SHIFT
    for joint, place in fixed.items():
        hollow = keypoints.confidence[joint] < _HOLLOW_BELOW
        outer, edge, inner = (size, line + 2, line) if hollow else (size + rim, cv2.FILLED, cv2.FILLED)
        cv2.circle(drawn, place, outer, _OUTLINE, edge, cv2.LINE_AA, _SHIFT)
        cv2.circle(drawn, place, size, colors[joint], inner, cv2.LINE_AA, _SHIFT)
    return drawn


def _draw_names(
    drawn: Pixels, names: list[str], positions: Float32[ndarray, "n 2"], radius: float, letters: int
) -> None:
    reach = radius + 1
    taken = [(float(x) - reach, float(y) - reach, float(x) + reach, float(y) + reach) for x, y in positions]
    middle = float(positions[:, 0].mean())
    for name, (x, y) in zip(names, positions, strict=True):
        fill, outline = _letters(name, letters)
        joint, gap = (float(x), float(y)), round(radius) + 2
        box = _free_box(fill.shape, joint, gap, bool(x < middle), taken, drawn.shape[:2])
        taken.append(box)
        left, top = round(box[0]), round(box[1])
        patch = drawn[top : top + fill.shape[0], left : left + fill.shape[1]]
        rows, columns, _ = patch.shape  # smaller than the name if the whole picture is
        ink, edge = fill[:rows, :columns, None], outline[:rows, :columns, None]
        patch[:] = np.round((patch * (1 - edge) + np.array(_OUTLINE, np.float32) * edge) * (1 - ink) + 255 * ink)


def _free_box(
    size: tuple[int, ...], joint: tuple[float, float], gap: int, to_left: bool, taken: list[Box], frame: tuple[int, ...]
) -> Box:
    """Return the box of a name of (height, width): the first place around its joint with the least overlap."""
    (rows, columns), (x, y) = size, joint
    beside = [(x + gap, y - rows / 2), (x - gap - columns, y - rows / 2)]
    lines = [(x - columns / 2, y - gap - rows), (x - columns / 2, y + gap)]
    corners = [(side, y + up) for side, _ in beside for up in (-rows, 0)]
    boxes: list[tuple[float, Box]] = []
    for left, top in (*(beside[::-1] if to_left else beside), *lines, *corners):
        left, top = max(0.0, min(left, frame[1] - columns)), max(0.0, min(top, frame[0] - rows))
        right, bottom = left + columns, top + rows
        covered = sum(
            max(0.0, min(right, box[2]) - max(left, box[0])) * max(0.0, min(bottom, box[3]) - max(top, box[1]))
            for box in taken
        )
        boxes.append((covered, (left, top, right, bottom)))
    return min(boxes, key=lambda item: item[0])[1]


@lru_cache(maxsize=512)
def _letters(text: str, size: int) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
    """Return the coverage in [0, 1] of letters and of their outline, in Pillow's font, which scales and has accents."""
    font = ImageFont.load_default(size)
    edge = max(1, size // 9)
    left, top, right, bottom = (int(v) for v in font.getbbox(text, stroke_width=edge))
    # one height for all names, from an ascender to a descender, so that their baselines agree
    _, top, _, bottom = (int(v) for v in font.getbbox("Ág", stroke_width=edge))
    layers = []
    for stroke in (0, edge):
        image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        # Pillow draws stroked text at the place of plain text, so both layers share an origin.
        ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font, stroke_width=stroke)
        layers.append(np.asarray(image, np.float32) / np.float32(255))
    return layers[0], layers[1]


@lru_cache(maxsize=8)
def _joint_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return the RGB of each joint: hues around the circle in equal steps, light and not fully saturated."""
    hues = np.arange(count) * (180.0 / max(1, count))
    hsv = np.stack([hues, np.full(count, 170), np.full(count, 255)], 1).astype(np.uint8)[None]
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    return tuple((int(r), int(g), int(b)) for r, g, b in rgb)
