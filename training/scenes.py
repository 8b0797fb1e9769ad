"""Training scenes for the matching stage: a photograph with moving cut-outs in front of it, in three views.

The three views show the scene at three moments. The background moves as under a moving camera (a homography and a
smooth bend). Up to `max_pieces` cut-outs move, turn, scale and bend independently. They occlude each other, leave the
picture and uncover the background, as in a video.

For each cell of a view, a scene gives the position of its partner in another view, or none where the partner is covered
or outside, and the share of each layer in the cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from training.cutouts import Cutout, blob
from training.photos import Photo

Points = NDArray[np.float32]  # (n, 2), x before y, pixel centers at integers
Matrix = NDArray[np.float64]
PAIRS = ((0, 1), (1, 2), (2, 0))
"""The ordered pairs of views whose cells are matched."""


@dataclass(frozen=True)
class SceneSettings:
    """Ranges of the random motion in a scene."""

    size: int = 160
    strides: tuple[int, ...] = (8, 4)
    max_pieces: int = 3
    crop: tuple[float, float] = (0.5, 1.8)  # of the background, times `size`
    piece: tuple[float, float] = (0.25, 1.0)  # extent of a piece, as a share of the side
    zoom: float = 0.45  # logarithm of the largest zoom between first and last view
    turn: float = 0.35  # radians, standard deviation between first and last view
    shift: tuple[float, float] = (0.15, 0.4)  # of the background, as a share of the side: usual, fast pan
    piece_shift: float = 0.3
    perspective: float = 0.1  # corner jitter, share of the side
    bend: tuple[float, float] = (2.0, 5.0)  # pixels, amplitude of the smooth field: background, pieces


@dataclass(frozen=True)
class Scene:
    """Three views of a scene.

    Attributes:
        views: (3, size, size, 3) uint8.
        shares: (3, cells, layers) float32, the share of each layer in each cell of the coarse grid.
        partners: per stride (3, cells, 2) float32, position of the cells of PAIRS[i][0] in the grid of PAIRS[i][1],
            (x, y) in cells, centers at integers.
        visible: per stride (3, cells) bool, whether a cell has a partner.
    """

    views: Photo
    shares: NDArray[np.float32]
    partners: list[NDArray[np.float32]]
    visible: list[NDArray[np.bool_]]


@dataclass
class Layer:
    """One layer of a scene: its picture, its opacity (None: opaque everywhere) and its placement in each view."""

    picture: Photo
    alpha: Photo | None
    placements: list[Matrix]
    fields: list[NDArray[np.float32]]
    sources: list[Points] = field(default_factory=list)


def make_scene(
    photo: Photo, cutouts: list[list[Cutout]], photos: list[Photo], rng: np.random.Generator, settings: SceneSettings
) -> Scene:
    """Return a scene with a photograph as background.

    Args:
        photo: the background.
        cutouts: sets of foreground pieces; each set is used equally often.
        photos: foreground pieces can also be blobs cut from these.
        rng: source of all random choices.
        settings: ranges of the motion.
    """
    size = settings.size
    moments = (0.0, rng.uniform(0.3, 0.8), 1.0)
    layers = [_background(photo, moments, rng, settings)]
    for _ in range(rng.choice(settings.max_pieces + 1, p=_piece_odds(settings.max_pieces))):
        if cutouts and rng.random() < 0.85:
            pieces = cutouts[int(rng.integers(len(cutouts)))]
            cutout = pieces[int(rng.integers(len(pieces)))]
        else:
            other = photos[int(rng.integers(len(photos)))]
            cutout = Cutout(other, blob(other.shape[:2], rng))
        layers.append(_piece(cutout, moments, rng, settings))
    look = _Look.draw(rng)
    views, shows = [], []
    for view in range(3):
        canvas, ids = _render(layers, view, size)
        views.append(look.apply(canvas, rng))
        shows.append(ids)
    coarse = size // settings.strides[0]
    stride = settings.strides[0]
    shares = np.stack(
        [
            np.stack(
                [
                    (ids == index).reshape(coarse, stride, coarse, stride).mean((1, 3))
                    for index in range(settings.max_pieces + 1)
                ],
                -1,
            ).reshape(-1, settings.max_pieces + 1)
            for ids in shows
        ]
    ).astype(np.float32)
    partners: list[NDArray[np.float32]] = []
    visible: list[NDArray[np.bool_]] = []
    for stride in settings.strides:
        found = [_partners(layers, shows, a, b, size, stride) for a, b in PAIRS]
        partners.append(np.stack([place for place, _ in found]))
        visible.append(np.stack([seen for _, seen in found]))
    return Scene(np.stack(views), shares, partners, visible)


def _piece_odds(most: int) -> NDArray[np.float64]:
    odds = np.ones(most + 1)
    odds[0] = 0.4
    return np.asarray(odds / odds.sum())


def _background(photo: Photo, moments: tuple[float, ...], rng: np.random.Generator, settings: SceneSettings) -> Layer:
    size = settings.size
    height, width = photo.shape[:2]
    side = min(height, width, size * rng.uniform(*settings.crop))
    center = (rng.uniform(side / 2, width - side / 2), rng.uniform(side / 2, height - side / 2))
    zoom = size / side
    base = np.array([[zoom, 0, size / 2 - zoom * center[0]], [0, zoom, size / 2 - zoom * center[1]], [0, 0, 1]])
    if rng.random() < 0.5:
        base = np.array([[-1, 0, size], [0, 1, 0], [0, 0, 1.0]]) @ base
    shift = settings.shift[int(rng.random() < 0.3)]
    return _moving(
        Layer(photo, None, [], []), base, (size / 2, size / 2), shift, settings.bend[0], moments, rng, settings
    )


def _piece(cutout: Cutout, moments: tuple[float, ...], rng: np.random.Generator, settings: SceneSettings) -> Layer:
    size = settings.size
    height, width = cutout.alpha.shape
    zoom = size * rng.uniform(*settings.piece) / max(height, width)
    target = rng.uniform(0.15, 0.85, 2) * size
    mirror = -1 if rng.random() < 0.5 else 1
    base = np.array(
        [
            [mirror * zoom, 0, target[0] - mirror * zoom * width / 2],
            [0, zoom, target[1] - zoom * height / 2],
            [0, 0, 1.0],
        ]
    )
    layer = Layer(cutout.picture, cutout.alpha, [], [])
    center = (float(target[0]), float(target[1]))
    return _moving(layer, base, center, settings.piece_shift, settings.bend[1], moments, rng, settings)


def _moving(
    layer: Layer,
    base: Matrix,
    center: tuple[float, float],
    shift: float,
    bend: float,
    moments: tuple[float, ...],
    rng: np.random.Generator,
    settings: SceneSettings,
) -> Layer:
    """Add the layer's motion through the views: steady zoom, turn, shift, slant and bend, with a little jitter."""
    size = settings.size
    zoom = rng.uniform(-settings.zoom, settings.zoom) * rng.random()
    angle = rng.normal(0, settings.turn) * rng.random()
    way = rng.uniform(-shift, shift, 2) * size
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    slant = rng.uniform(-settings.perspective, settings.perspective, (4, 2)) * size * rng.random()
    bends = rng.normal(0, bend * rng.random(), (2, int(rng.integers(4, 7)), int(rng.integers(4, 7))))
    for moment in moments:
        unrest = rng.normal(0, 0.01, 2) * size
        scale, turn = np.exp(zoom * moment), angle * moment
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        x, y = center
        to_x, to_y = x + way[0] * moment + unrest[0], y + way[1] * moment + unrest[1]
        similar = np.array([[cos, -sin, to_x - cos * x + sin * y], [sin, cos, to_y - sin * x - cos * y], [0, 0, 1]])
        seen = cv2.getPerspectiveTransform(corners, (corners + slant * moment).astype(np.float32))
        layer.placements.append(seen @ similar @ base)
        smooth = [
            cv2.resize((plane * moment).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
            for plane in bends
        ]
        layer.fields.append(np.stack(smooth, -1))
    return layer


def _render(layers: list[Layer], view: int, size: int) -> tuple[Photo, Photo]:
    """Return the picture and the number of the top layer per pixel."""
    grid = np.stack(np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32)), -1)
    canvas = np.zeros((size, size, 3), np.uint8)
    ids = np.zeros((size, size), np.uint8)
    for index, layer in enumerate(layers):
        placement = layer.placements[view]
        source = _through(np.linalg.inv(placement), (grid + layer.fields[view]).reshape(-1, 2)).reshape(size, size, 2)
        picture = _shrinkable(layer.picture, placement)
        seen = cv2.remap(picture, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if layer.alpha is None:
            canvas = seen.astype(np.uint8)
            continue
        alpha = cv2.remap(_shrinkable(layer.alpha, placement), source[..., 0], source[..., 1], cv2.INTER_LINEAR)
        share = alpha[..., None].astype(np.float32) / 255
        canvas = np.round(canvas * (1 - share) + seen * share).astype(np.uint8)
        ids[alpha > 127] = index
    return canvas, ids


def _shrinkable(picture: Photo, placement: Matrix) -> Photo:
    """Return the picture, blurred in proportion to its reduction, to avoid aliasing."""
    scale = np.sqrt(abs(np.linalg.det(placement[:2, :2])))
    if scale > 0.75:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 * (1 / max(scale, 0.05) - 1)), np.uint8)


def _through(matrix: NDArray[np.floating], points: Points) -> Points:
    """Return the points after a homography."""
    matrix32 = matrix.astype(np.float32)
    homogeneous = points @ matrix32[:, :2].T + matrix32[:, 2]
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _partners(
    layers: list[Layer], shows: list[Photo], a: int, b: int, size: int, stride: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    centers = ((np.arange(size // stride) + 0.5) * stride - 0.5).astype(np.float32)
    cells = np.stack(np.meshgrid(centers, centers), -1).reshape(-1, 2)
    at = cells.round().astype(int)
    mine = shows[a][at[:, 1], at[:, 0]]
    place = np.zeros_like(cells)
    seen = np.zeros(len(cells), bool)
    for index, layer in enumerate(layers):
        chosen = mine == index
        if not chosen.any():
            continue
        points = cells[chosen]
        source = _through(np.linalg.inv(layer.placements[a]), points + _sample(layer.fields[a], points))
        straight = _through(layer.placements[b], source)
        there = straight
        for _ in range(6):  # view b shows p + field(p) at p: solve p + field(p) = straight by fixed point
            there = straight - _sample(layer.fields[b], np.clip(there, 0, size - 1))
        within = ((there >= 0) & (there <= size - 1)).all(1)
        if layer.alpha is None:  # beyond its border the photograph is mirrored
            height, width = layer.picture.shape[:2]
            within &= ((source >= 0) & (source <= [width - 1, height - 1])).all(1)
        rounded = np.clip(there.round().astype(int), 0, size - 1)
        within &= shows[b][rounded[:, 1], rounded[:, 0]] == index
        place[chosen], seen[chosen] = there, within
    return ((place + 0.5) / stride - 0.5).astype(np.float32), seen


def _sample(displacements: NDArray[np.float32], points: Points) -> Points:
    points = np.ascontiguousarray(points, np.float32)
    sampled = cv2.remap(displacements, points[:, None, 0], points[:, None, 1], cv2.INTER_LINEAR)
    return np.asarray(sampled.reshape(-1, 2), np.float32)


@dataclass(frozen=True)
class _Look:
    """Light and color of a scene. Each view varies them slightly and has its own blur and compression."""

    contrast: float
    brightness: float
    balance: NDArray[np.float32]
    color: float
    change: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Look:
        return cls(
            contrast=rng.uniform(0.7, 1.3),
            brightness=rng.uniform(-0.12, 0.12),
            balance=rng.uniform(0.88, 1.12, 3).astype(np.float32),
            color=rng.uniform(0.2, 1.0) if rng.random() < 0.15 else 1.0,
            change=1.0 if rng.random() < 0.3 else 0.3,
        )

    def apply(self, view: Photo, rng: np.random.Generator) -> Photo:
        image = view.astype(np.float32) / 255
        contrast = self.contrast * np.exp(rng.uniform(-0.25, 0.25) * self.change)
        brightness = self.brightness + rng.uniform(-0.1, 0.1) * self.change
        image = (image - 0.5) * np.float32(contrast) + np.float32(0.5 + brightness)
        image *= self.balance * np.exp(rng.uniform(-0.1, 0.1, 3) * self.change).astype(np.float32)
        if self.color < 1:
            grey = image.mean(-1, keepdims=True)
            image = grey + (image - grey) * np.float32(self.color)
        draw = rng.random()
        if draw < 0.2:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))
        elif draw < 0.35:
            image = cv2.filter2D(image, -1, _streak(rng))
        result = np.clip(image * 255, 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            _, packed = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
            result = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        return result


def _streak(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the kernel of a motion blur of 3 to 9 pixels."""
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = (length - 1) / 2
    start = (round(reach - reach * np.cos(angle)), round(reach - reach * np.sin(angle)))
    end = (round(reach + reach * np.cos(angle)), round(reach + reach * np.sin(angle)))
    cv2.line(kernel, start, end, 1.0)
    return np.asarray(kernel / kernel.sum())


class SceneBatches(IterableDataset[dict[str, torch.Tensor]]):
    """Endless batches of scenes. Batch n depends only on the seed and n.

    A batch holds `views` (3 * batch, 3, size, size) uint8, all first views, then all second, then all third; `shares`
    (3, batch, cells, layers); and for each stride s `partner_s` (3, batch, cells, 2) and `visible_s` (3, batch, cells),
    by pair.
    """

    def __init__(
        self,
        photos: list[Photo],
        cutouts: list[list[Cutout]],
        settings: SceneSettings,
        *,
        batch: int,
        seed: int,
        start: int,
    ) -> None:
        self.photos, self.cutouts, self.settings = photos, cutouts, settings
        self.batch, self.seed, self.start = batch, seed, start

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        cv2.setNumThreads(0)
        step = self.start
        while True:
            rng = np.random.default_rng((self.seed, step))
            chosen = rng.choice(len(self.photos), self.batch, replace=False)
            scenes = [make_scene(self.photos[i], self.cutouts, self.photos, rng, self.settings) for i in chosen]
            views = np.stack([scene.views for scene in scenes], 1).reshape(
                -1, self.settings.size, self.settings.size, 3
            )
            batch = {
                "views": torch.from_numpy(views).permute(0, 3, 1, 2),
                "shares": torch.from_numpy(np.stack([scene.shares for scene in scenes], 1)),
            }
            for number, stride in enumerate(self.settings.strides):
                batch[f"partner_{stride}"] = torch.from_numpy(np.stack([s.partners[number] for s in scenes], 1))
                batch[f"visible_{stride}"] = torch.from_numpy(np.stack([s.visible[number] for s in scenes], 1))
            yield batch
            step += 1
