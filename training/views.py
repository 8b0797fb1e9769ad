"""Training samples: single crops for the denoising stage, pairs of views for the matching stage.

A pair shows one photograph twice, under two random homographies (the second one also bent by a smooth field).
Up to `max_pieces` cut-out pieces of other photographs lie on top and move on their own between the two views, so
that the network sees what a video shows: things that move differently from what is behind them, and background that
appears and disappears. Every cell of view A comes with the place of its partner in view B, or with none where the
partner is covered or out of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from training.photos import Photo

Points = NDArray[np.float64]  # (n, 2), x before y, pixel centers at integers
Transform = Callable[[Points], Points]


@dataclass(frozen=True)
class ViewSettings:
    """How different the two views of a pair are."""

    size: int = 160
    stride: int = 8
    max_pieces: int = 2
    zoom: tuple[float, float] = (0.5, 1.5)
    turn: float = 0.35  # radians, standard deviation
    perspective: float = 0.12  # corner jitter, share of the side
    bend: float = 3.0  # pixels, amplitude of the smooth field in view B


@dataclass(frozen=True)
class Pair:
    """Two views and the partners of A's cells.

    `view_a`, `view_b`: (size, size, 3) uint8. `partner`: (cells, 2) float32, place in B's grid in cell units, (x, y),
    cell centers at integers. `has_partner`: (cells,) bool.
    """

    view_a: Photo
    view_b: Photo
    partner: NDArray[np.float32]
    has_partner: NDArray[np.bool_]


def random_crop(photo: Photo, size: int, rng: np.random.Generator, widest: float = 2.8) -> Photo:
    """A square crop of 1 to `widest` times `size`, resized to (size, size, 3), flipped half of the time."""
    height, width = photo.shape[:2]
    side = int(min(rng.uniform(1, widest) * size, height, width))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = photo[top : top + side, left : left + side]
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def make_pair(photos: list[Photo], index: int, rng: np.random.Generator, settings: ViewSettings) -> Pair:
    """Two views of photograph `index` with moving pieces of others."""
    size = settings.size
    photo = photos[index]
    to_a = _placement(photo.shape[:2], size, rng, settings)
    to_b = _vary(to_a, size, rng, settings)
    field = _smooth_field(size, settings.bend * rng.random(), rng)
    layers_a = np.zeros((size, size), np.uint8)  # 0: the photograph, k: piece k
    layers_b = np.zeros((size, size), np.uint8)
    view_a = _warp(photo, to_a, size)
    view_b = _warp(photo, to_b, size, field)
    placements = [(to_a, to_b)]
    for piece in range(1, rng.integers(0, settings.max_pieces + 1) + 1):
        other = photos[int(rng.integers(len(photos)))]
        shape = _blob(other.shape[:2], rng)
        piece_a = _piece_placement(shape, size, rng)
        piece_b = _vary(piece_a, size, rng, settings, shift=0.25)
        for view, layers, place, bent in ((view_a, layers_a, piece_a, None), (view_b, layers_b, piece_b, field)):
            alpha = _warp(shape, place, size, bent, border=cv2.BORDER_CONSTANT)[..., None] / np.float32(255)
            view[:] = np.round(view * (1 - alpha) + _warp(other, place, size, bent) * alpha).astype(np.uint8)
            layers[alpha[..., 0] > 0.5] = piece
        placements.append((piece_a, piece_b))
    partner, has_partner = _partners(photo.shape[:2], placements, layers_a, layers_b, field, settings)
    if rng.random() < 0.5:  # which of the two is called A must not matter to the network
        view_a, view_b = view_a[:, ::-1], view_b[:, ::-1]
        grid = size // settings.stride
        partner = partner.reshape(grid, grid, 2)[:, ::-1].reshape(-1, 2).copy()
        partner[:, 0] = grid - 1 - partner[:, 0]
        has_partner = has_partner.reshape(grid, grid)[:, ::-1].reshape(-1).copy()
    return Pair(_photometric(view_a, rng), _photometric(view_b, rng), partner, has_partner)


def _placement(
    shape: tuple[int, int], size: int, rng: np.random.Generator, settings: ViewSettings
) -> NDArray[np.float64]:
    """A homography from photograph pixels to view pixels that shows a random part of it."""
    height, width = shape
    side = min(height, width, size * rng.uniform(0.9, 1.8))
    center = np.array([rng.uniform(side / 2, width - side / 2), rng.uniform(side / 2, height - side / 2)])
    zoom = size / side
    move = np.array([[zoom, 0, size / 2 - zoom * center[0]], [0, zoom, size / 2 - zoom * center[1]], [0, 0, 1]])
    return _jitter(size, settings.perspective / 2, rng) @ move


def _piece_placement(shape: Photo, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Piece pixels to view pixels: the piece covers 0.25 to 0.7 of the view's side."""
    height, width = shape.shape
    zoom = size * rng.uniform(0.25, 0.7) / (0.6 * min(height, width))
    target = rng.uniform(0.2, 0.8, 2) * size
    return np.array([[zoom, 0, target[0] - zoom * width / 2], [0, zoom, target[1] - zoom * height / 2], [0, 0, 1.0]])


def _vary(
    placement: NDArray[np.float64], size: int, rng: np.random.Generator, settings: ViewSettings, shift: float = 0.15
) -> NDArray[np.float64]:
    """The same thing seen again: zoomed, turned, moved and seen at a slant."""
    low, high = settings.zoom
    zoom = np.exp(rng.uniform(np.log(low), np.log(high)) * rng.random())
    angle = rng.normal(0, settings.turn) * rng.random()
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    middle = size / 2
    turn = np.array(
        [[cos, -sin, middle - cos * middle + sin * middle], [sin, cos, middle - sin * middle - cos * middle]]
    )
    turn[:, 2] += rng.uniform(-shift, shift, 2) * size
    return _jitter(size, settings.perspective, rng) @ np.vstack([turn, [0, 0, 1]]) @ placement


def _jitter(size: int, amount: float, rng: np.random.Generator) -> NDArray[np.float64]:
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    moved = corners + rng.uniform(-amount, amount, (4, 2)).astype(np.float32) * size * rng.random()
    return cv2.getPerspectiveTransform(corners, moved.astype(np.float32))


def _smooth_field(size: int, amplitude: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(size, size, 2) displacements in pixels, smooth over about a third of the view."""
    coarse = rng.normal(0, amplitude, (5, 5, 2)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _blob(shape: tuple[int, int], rng: np.random.Generator) -> Photo:
    """A closed random outline in the middle of a photograph, (H, W) uint8, 255 inside."""
    height, width = shape
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angles)
    for order in range(1, 6):
        radius += rng.normal(0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.25, 1.9) * 0.26 * min(height, width)
    squeeze = rng.uniform(0.6, 1.0, 2)
    outline = np.stack(
        [width / 2 + squeeze[0] * radius * np.cos(angles), height / 2 + squeeze[1] * radius * np.sin(angles)], 1
    )
    mask = np.zeros((height, width), np.uint8)
    return cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], (255,), lineType=cv2.LINE_AA).astype(np.uint8)


def _warp(
    image: Photo,
    placement: NDArray[np.float64],
    size: int,
    field: NDArray[np.float32] | None = None,
    border: int = cv2.BORDER_REFLECT_101,
) -> Photo:
    """The image seen through a placement; with a field, view pixel p shows what lies at p + field(p)."""
    ys, xs = np.mgrid[:size, :size].astype(np.float32)
    where = np.stack([xs, ys], -1) if field is None else np.stack([xs, ys], -1) + field
    source = _apply(np.linalg.inv(placement), where.reshape(-1, 2).astype(np.float64)).astype(np.float32)
    source = source.reshape(size, size, 2)
    scale = np.sqrt(abs(np.linalg.det(placement[:2, :2])))
    if scale < 0.75:  # shrinking without a blur would alias
        sigma = 0.5 * (1 / scale - 1)
        image = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8)
    return cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=border).astype(np.uint8)


def _apply(matrix: NDArray[np.float64], points: Points) -> Points:
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    return homogeneous[:, :2] / homogeneous[:, 2:]


def _partners(
    photo_shape: tuple[int, int],
    placements: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    layers_a: Photo,
    layers_b: Photo,
    field: NDArray[np.float32],
    settings: ViewSettings,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    size, stride = settings.size, settings.stride
    centers = (np.arange(size // stride) + 0.5) * stride - 0.5
    cells = np.stack(np.meshgrid(centers, centers, indexing="xy"), -1).reshape(-1, 2)
    layer = layers_a[cells[:, 1].round().astype(int), cells[:, 0].round().astype(int)]
    partner = np.zeros_like(cells)
    has_partner = np.zeros(len(cells), bool)
    for index, (to_a, to_b) in enumerate(placements):
        mine = layer == index
        if not mine.any():  # a piece may be covered whole
            continue
        source = _apply(np.linalg.inv(to_a), cells[mine])
        straight = _apply(to_b, source)
        place = straight.copy()
        for _ in range(6):  # view B shows p + field(p) at p: solve p + field(p) = straight by fixed point
            inside = np.clip(place, 0, size - 1).astype(np.float32)
            bend = cv2.remap(field, inside[:, None, 0], inside[:, None, 1], cv2.INTER_LINEAR).reshape(-1, 2)
            place = straight - bend
        within = ((place >= 0) & (place <= size - 1)).all(1)
        if index == 0:  # beyond the photograph's rim the picture is a reflection of itself
            height, width = photo_shape
            within &= ((source >= 0) & (source <= [width - 1, height - 1])).all(1)
        rounded = np.clip(place.round().astype(int), 0, size - 1)
        within &= layers_b[rounded[:, 1], rounded[:, 0]] == index
        partner[mine], has_partner[mine] = place, within
    return ((partner + 0.5) / stride - 0.5).astype(np.float32), has_partner


def _photometric(view: Photo, rng: np.random.Generator) -> Photo:
    """Brightness, contrast, color balance, blur and a touch of grey, each drawn on its own."""
    image = view.astype(np.float32) / 255
    contrast, brightness = rng.uniform(0.7, 1.35), rng.uniform(-0.12, 0.12)
    balance = rng.uniform(0.88, 1.12, 3).astype(np.float32)
    image = (image - 0.5) * np.float32(contrast) + np.float32(0.5 + brightness)
    image *= balance
    if rng.random() < 0.3:
        grey = image.mean(-1, keepdims=True)
        image = grey + (image - grey) * np.float32(rng.uniform(0.2, 1.0))
    draw = rng.random()
    if draw < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))
    elif draw < 0.35:  # motion blur
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        middle, reach = (length - 1) / 2, (length - 1) / 2
        start = (round(middle - reach * np.cos(angle)), round(middle - reach * np.sin(angle)))
        end = (round(middle + reach * np.cos(angle)), round(middle + reach * np.sin(angle)))
        cv2.line(kernel, start, end, 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    return np.clip(image * 255, 0, 255).astype(np.uint8)


class CropBatches(IterableDataset[torch.Tensor]):
    """Endless batches of single crops, (batch, 3, size, size) uint8; batch n depends on the seed and n alone."""

    def __init__(self, photos: list[Photo], *, batch: int, size: int, seed: int, start: int) -> None:
        self.photos, self.batch, self.size, self.seed, self.start = photos, batch, size, seed, start

    def __iter__(self) -> Iterator[torch.Tensor]:
        cv2.setNumThreads(0)
        step = self.start
        while True:
            rng = np.random.default_rng((self.seed, step))
            chosen = rng.integers(len(self.photos), size=self.batch)
            crops = np.stack([random_crop(self.photos[index], self.size, rng) for index in chosen])
            yield torch.from_numpy(crops).permute(0, 3, 1, 2)
            step += 1


class PairBatches(IterableDataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Endless batches of pairs; batch n depends on the seed and n alone.

    Yields `views` (2 * batch, 3, size, size) uint8, all A before all B, `partner` (batch, cells, 2) float32 and
    `has_partner` (batch, cells) bool.
    """

    def __init__(self, photos: list[Photo], settings: ViewSettings, *, batch: int, seed: int, start: int) -> None:
        self.photos, self.settings, self.batch, self.seed, self.start = photos, settings, batch, seed, start

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        cv2.setNumThreads(0)
        step = self.start
        while True:
            rng = np.random.default_rng((self.seed, step))
            chosen = rng.choice(len(self.photos), self.batch, replace=False)
            pairs = [make_pair(self.photos, int(index), rng, self.settings) for index in chosen]
            views = np.stack([pair.view_a for pair in pairs] + [pair.view_b for pair in pairs])
            partner = torch.from_numpy(np.stack([pair.partner for pair in pairs]))
            has_partner = torch.from_numpy(np.stack([pair.has_partner for pair in pairs]))
            yield torch.from_numpy(views).permute(0, 3, 1, 2), partner, has_partner
            step += 1
