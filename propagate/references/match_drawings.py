"""Pictures of correspondences: numbered lines, heat maps and the color wheel."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

_GAP = 8  # pixels between the two pictures
_ENLARGED = 2**24  # size limit of enlarged pictures, in pixels
_HEAT = 0.55  # weight of the heat over the picture
_WHEEL = 0.65  # weight of the wheel's colors


def draw_lines(
    a: UInt8[ndarray, "h w 3"],
    b: UInt8[ndarray, "y x 3"],
    points: Float[ndarray, "n 2"],
    matches: Float[ndarray, "n 2"],
    cosine: Float[ndarray, " n"],
    mutual: Bool[ndarray, " n"],
) -> UInt8[ndarray, "r c 3"]:
    """Draw both pictures side by side, with a numbered line from each point to its match.

    Colors go from red (cosine 0) over yellow to green (1); a match that is not mutual has a thin line and open dots.
    The smaller picture is enlarged to the other's height, or to 16 million pixels. Points and matches are (x, y) in
    pixels of A, and of B.
    """
    height = max(len(a), len(b), 360)
    left, right = _enlarged(a, height), _enlarged(b, height)
    starts = (points + 0.5) * (len(left) / len(a)) - 0.5
    ends = (matches + 0.5) * (len(right) / len(b)) - 0.5 + np.array([left.shape[1] + _GAP, 0])
    image = Image.fromarray(_side_by_side(left, right, height))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(max(12, height // 30))
    radius = max(3, height // 110)
    for number, (start, end, value, sure) in enumerate(zip(starts, ends, cosine, mutual, strict=True), start=1):
        red, green, blue = colorsys.hsv_to_rgb(float(np.clip(value, 0, 1)) / 3, 1, 1)
        color = round(255 * red), round(255 * green), round(255 * blue)
        draw.line([*start.tolist(), *end.tolist()], fill=color, width=3 if sure else 1)
        for x, y in (start.tolist(), end.tolist()):
            box = [x - radius, y - radius, x + radius, y + radius]
            draw.ellipse(box, fill=color if sure else None, outline=color, width=2)
            place = (x + radius + 2, y - radius - 2)
            draw.text(place, str(number), fill="white", stroke_fill="black", stroke_width=2, font=font)
    return np.array(image)


def draw_heat(
    picture: UInt8[ndarray, "h w 3"], similarity: Float[ndarray, "y x"], match: Float[ndarray, "2"]
) -> UInt8[ndarray, "h w 3"]:
    """Overlay a similarity map from blue (lowest) to red (highest), with a cross on the match, (x, y) in pixels."""
    height, width, _ = picture.shape
    low, high = float(similarity.min()), float(similarity.max())
    levels = np.round(255 * (similarity - low) / max(high - low, 1e-6)).astype(np.uint8)
    smooth = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.cvtColor(cv2.applyColorMap(smooth, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    drawn = cv2.addWeighted(picture, 1 - _HEAT, heat, _HEAT, 0)
    place, arm = (round(float(match[0])), round(float(match[1]))), max(6, min(height, width) // 25)
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.drawMarker(drawn, place, color, cv2.MARKER_CROSS, arm, thickness)
    return np.asarray(drawn)


def draw_wheel(
    a: UInt8[ndarray, "h w 3"], b: UInt8[ndarray, "y x 3"], field: Float[ndarray, "r c 2"], mutual: Bool[ndarray, "r c"]
) -> UInt8[ndarray, "p q 3"]:
    """Paint B with a color wheel (hue: direction from the center; saturation: distance), A in its matches' colors.

    `field` has (x, y) of the match in pixels of B for each cell of A; cells without a mutual match stay gray.
    """
    height, width, _ = b.shape
    rows, columns = np.indices((height, width))
    own = _wheel(np.stack([columns, rows], -1).astype(np.float64), (height, width))
    found = np.where(mutual[..., None], _wheel(field.astype(np.float64), (height, width)), 0).astype(np.uint8)
    size = a.shape[1], a.shape[0]
    colors = cv2.resize(found, size, interpolation=cv2.INTER_NEAREST)
    known = cv2.resize(mutual.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)[..., None] > 0
    left = np.where(known, _painted(a, colors), _gray(a))
    right = _painted(b, own)
    tall = max(len(left), len(right))
    return _side_by_side(_enlarged(left, tall), _enlarged(right, tall), tall)


def _enlarged(picture: UInt8[ndarray, "h w 3"], height: int) -> UInt8[ndarray, "p q 3"]:
    """Resize to this height, or as far as `_ENLARGED` allows: a narrow strip beside a wide one stays small."""
    rows, columns, _ = picture.shape
    scale = min(height / rows, max(1.0, (_ENLARGED / (rows * columns)) ** 0.5))
    return np.asarray(cv2.resize(picture, (round(columns * scale), round(rows * scale))))


def _side_by_side(
    left: UInt8[ndarray, "h w 3"], right: UInt8[ndarray, "y x 3"], height: int
) -> UInt8[ndarray, "r c 3"]:
    """Two pictures on white, a gap between them."""
    start = left.shape[1] + _GAP
    canvas = np.full((height, start + right.shape[1], 3), 255, np.uint8)
    canvas[: len(left), : left.shape[1]] = left
    canvas[: len(right), start:] = right
    return canvas


def _wheel(places: Float[ndarray, "r c 2"], size: tuple[int, int]) -> UInt8[ndarray, "r c 3"]:
    height, width = size
    across, down = (places[..., 0] + 0.5) * 2 / width - 1, (places[..., 1] + 0.5) * 2 / height - 1
    hue = (np.degrees(np.arctan2(down, across)) % 360) / 2
    saturation = 255 * np.clip(np.hypot(across, down), 0, 1)
    hsv = np.stack([np.minimum(hue, 179), saturation, np.full(hue.shape, 255)], -1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _gray(picture: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.repeat(gray[..., None], 3, 2)


def _painted(picture: UInt8[ndarray, "h w 3"], colors: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    return np.asarray(cv2.addWeighted(_gray(picture), 1 - _WHEEL, colors, _WHEEL, 0))
