"""Render `rendered/`: a clip of moving, turning, scaling, bending cut-outs with exact labels in every frame.

    python -m sample_videos.render

`rendered/scene.json` lists the photographs of scikit-image with the outlines, keypoints and motion of the objects. The
script writes `clip.mp4`, `masks/00000.png` and so on, and `keypoints.json` into the same folder.

A point (u, v) of an object, in pixels of its photograph relative to the center, is mapped to the frame in this order:

    bend    u += a sin(pi v / h),  then  v += b sin(pi u / w)      (w, h: size of the outline's box)
    turn    by the angle, scale by zoom * scale, shift to the position

Each step has an exact inverse. So the pictures (drawn by the inverse, frame to photograph) and the keypoints (mapped
forward) agree exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import skimage.data
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import CubicSpline

from propagate.formats import KeypointsWriter, write_mask
from propagate.types import Frame, Keypoints, Mask, Prediction
from sample_videos.clip_writer import write_clip

FOLDER = Path(__file__).resolve().parent / "rendered"
CRF = 20
# Each pixel is the mean of 3x3 samples, which anti-aliases edges and reduced textures.
_SAMPLES = 3
# Standard deviation of the sensor noise, in gray levels of 255.
_NOISE = 1.5


@dataclass(frozen=True)
class Pose:
    """Pose of an object in one frame: position in pixels, scale, angle in radians, bends in photograph pixels."""

    x: float
    y: float
    scale: float
    angle: float
    bend_u: float
    bend_v: float


@dataclass(frozen=True, eq=False)
class Cutout:
    """A piece of a photograph."""

    pixels: Float[ndarray, "h w 3"]  # (H, W, 3) float32, the photograph, 0 to 255
    alpha: Float[ndarray, "h w"]  # (H, W) float32, 1 inside the outline
    center: Float[ndarray, "2"]  # (2,) point of the photograph that is placed at the position of the pose
    box: Float[ndarray, "2"]  # (2,) width and height of the outline
    zoom: float  # frame pixels per photograph pixel at scale 1

    def to_frame(self, points: Float[ndarray, "n 2"], pose: Pose) -> Float[ndarray, "n 2"]:
        """Map points (x, y) of the photograph to the frame."""
        u, v = (np.asarray(points, np.float64) - self.center).T
        u = u + pose.bend_u * np.sin(np.pi * v / self.box[1])
        v = v + pose.bend_v * np.sin(np.pi * u / self.box[0])
        cos, sin = np.cos(pose.angle), np.sin(pose.angle)
        factor = self.zoom * pose.scale
        return np.stack([pose.x + factor * (cos * u - sin * v), pose.y + factor * (sin * u + cos * v)], 1)

    def draw(
        self, x: Float[ndarray, "h w"], y: Float[ndarray, "h w"], pose: Pose
    ) -> tuple[Float[ndarray, "h w 3"], Float[ndarray, "h w"]]:
        """Return colors and coverage at the frame positions x, y, by inverting `to_frame` step by step."""
        cos, sin = np.cos(pose.angle), np.sin(pose.angle)
        factor = self.zoom * pose.scale
        dx, dy = (x - pose.x) / factor, (y - pose.y) / factor
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        v = v - pose.bend_v * np.sin(np.pi * u / self.box[0])
        u = u - pose.bend_u * np.sin(np.pi * v / self.box[1])
        source = ((u + self.center[0]).astype(np.float32), (v + self.center[1]).astype(np.float32))
        pixels = cv2.remap(self.pixels, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.remap(self.alpha, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return pixels, alpha


@cache
def read_scene() -> dict[str, Any]:
    """Read `rendered/scene.json`. Objects are listed from back to front."""
    scene: dict[str, Any] = json.loads((FOLDER / "scene.json").read_text())
    return scene


@cache
def photograph(name: str) -> Float[ndarray, "h w 3"]:
    """Return a picture of scikit-image as (H, W, 3) float32, 0 to 255; gray is repeated in three channels."""
    picture = np.asarray(getattr(skimage.data, name)(), np.float32)
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


@cache
def cutout(number: int) -> Cutout:
    """Return the object at this place in the list of the scene."""
    thing = read_scene()["objects"][number]
    pixels = photograph(thing["picture"])
    outline = np.array(thing["outline"], np.float32)
    alpha = np.zeros(pixels.shape[:2], np.float32)
    cv2.fillPoly(alpha, [np.round(outline * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    # Sharp polygon corners would be artificial landmarks: round them to a radius of about 4 photograph pixels.
    alpha = np.clip((cv2.GaussianBlur(alpha, (0, 0), 4) - 0.5) * 4 + 0.5, 0, 1)
    center = np.array(thing["center"], np.float64)
    return Cutout(pixels, alpha, center, np.ptp(outline, axis=0).astype(np.float64), float(thing["zoom"]))


def along(nodes: list[list[float]], index: int) -> Float[ndarray, " n"]:
    """Return the values at a frame: a cubic spline through nodes at equal intervals over the clip."""
    times = np.linspace(0, read_scene()["frames"] - 1, len(nodes))
    return np.asarray(CubicSpline(times, nodes)(index), np.float64)


def pose(number: int, index: int) -> Pose:
    """Return the pose of an object in a frame."""
    x, y, scale, degrees, bend_u, bend_v = along(read_scene()["objects"][number]["motion"], index).tolist()
    return Pose(x, y, scale, float(np.radians(degrees)), bend_u, bend_v)


def _background(x: Float[ndarray, "h w"], y: Float[ndarray, "h w"], index: int) -> Float[ndarray, "h w 3"]:
    """Return the background at the frame positions x, y, under a slowly panning camera."""
    ground = read_scene()["background"]
    left, top = along(ground["pan"], index)
    source = (((x + left) / ground["zoom"]).astype(np.float32), ((y + top) / ground["zoom"]).astype(np.float32))
    pixels = cv2.remap(photograph(ground["picture"]), *source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.clip(pixels, 0, 255) * np.array(ground["tint"], np.float32)


def _light(x: Float[ndarray, "h w"], y: Float[ndarray, "h w"], index: int) -> Float[ndarray, "h w"]:
    """Return the brightness under a drifting lamp, from 0.78 far away to 1.12 below it, so moving objects change."""
    width, height = read_scene()["size"]
    done = index / (read_scene()["frames"] - 1)
    across, down = (x / width - 0.25 - 0.4 * done) / 0.5, (y / height - 0.3 - 0.2 * done) / 0.7
    return (0.78 + 0.34 * np.exp(-0.5 * (across**2 + down**2))).astype(np.float32)


def _pooled(samples: ndarray) -> ndarray:
    """Return the mean of the samples of each pixel."""
    width, height = read_scene()["size"]
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)


def render_frame(index: int) -> tuple[Frame, Mask]:
    """Draw one frame and its mask. The result depends only on the index.

    A pixel belongs to the object, or to the background, that covers most of it.
    """
    scene = read_scene()
    width, height = scene["size"]
    columns = (np.arange(width * _SAMPLES) + 0.5) / _SAMPLES - 0.5
    rows = (np.arange(height * _SAMPLES) + 0.5) / _SAMPLES - 0.5
    x, y = np.meshgrid(columns, rows)
    picture = _background(x, y, index)
    ids, covers = [0], [np.ones((height, width), np.float32)]
    for number, thing in enumerate(scene["objects"]):
        pixels, alpha = cutout(number).draw(x, y, pose(number, index))
        # A soft shadow, down and to the right, on everything behind the object.
        shadow = cv2.warpAffine(cv2.resize(alpha, (width, height)), np.array([[1.0, 0, 4], [0, 1, 6]]), (width, height))
        shadow = cv2.resize(cv2.GaussianBlur(shadow, (0, 0), 5), x.shape[::-1])
        picture *= (1 - 0.35 * shadow)[..., None]
        picture += alpha[..., None] * (pixels - picture)
        cover = _pooled(alpha)
        covers = [behind * (1 - cover) for behind in covers] + [cover]
        ids.append(thing["id"])
    exposed = _pooled(picture * _light(x, y, index)[..., None])
    noise = np.random.default_rng([scene["seed"], index]).normal(0, _NOISE, exposed.shape)
    frame = Frame(np.clip(np.round(exposed + noise), 0, 255).astype(np.uint8), index, index / scene["rate"])
    return frame, Mask(np.array(ids, np.uint8)[np.argmax(covers, axis=0)])


def true_keypoints(index: int, mask: Mask) -> Keypoints:
    """Return the keypoints of all objects in a frame; absent where the mask or the edge of the frame hides one."""
    objects = read_scene()["objects"]
    names = tuple(name for thing in objects for name in thing["keypoints"])
    skeleton = tuple((names.index(start), names.index(end)) for thing in objects for start, end in thing["skeleton"])
    positions = []
    for number, thing in enumerate(objects):
        marks = np.array(list(thing["keypoints"].values()), np.float64)
        places = cutout(number).to_frame(marks, pose(number, index))
        positions += [place if _id_at(mask, place) == thing["id"] else np.full(2, np.nan) for place in places]
    return Keypoints(np.round(np.array(positions), 2).astype(np.float32), names, skeleton)


def _id_at(mask: Mask, place: Float[ndarray, "2"]) -> int | None:
    """Return the id of the pixel at a position (x, y), or None outside the frame."""
    height, width = mask.size
    column, row = np.round(place).astype(int).tolist()
    return int(mask.ids[row, column]) if 0 <= column < width and 0 <= row < height else None


def main() -> None:
    width, height = read_scene()["size"]
    (FOLDER / "masks").mkdir(exist_ok=True)

    def frames(keypoints: KeypointsWriter) -> Iterator[av.VideoFrame]:
        for index in range(read_scene()["frames"]):
            frame, mask = render_frame(index)
            write_mask(FOLDER / "masks" / f"{index:05d}.png", mask)
            keypoints.write(Prediction(index, frame.time_s, keypoints=true_keypoints(index, mask)))
            yield av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")

    with KeypointsWriter(FOLDER / "keypoints.json", frame_size=(height, width)) as keypoints:
        count = write_clip(FOLDER / "clip.mp4", frames(keypoints), Fraction(read_scene()["rate"]), CRF)
    print(f"{FOLDER}: {count} frames")


if __name__ == "__main__":
    main()
