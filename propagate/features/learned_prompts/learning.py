"""Learning a prompt's embedding whose attention lies where a joint or an object is, and reading the attention.

Hedlin et al., Unsupervised Semantic Correspondence Using Stable Diffusion (NeurIPS 2023; LDM_correspondences). All
vectors of an embedding are learned, from random ones; only the attention to the second is compared with the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.errors import UsageError
from propagate.features.learned_prompts.cross_attention import AttentionNetwork
from propagate.features.learned_prompts.targets import Crop, Target, corners, random_crop, resized, whole


class View(NamedTuple):
    """The input of a learning step: a crop of the picture, and noise of its latents."""

    crop: Crop
    noise: Float[Tensor, "1 c y x"]


class Learned(NamedTuple):
    """A learned embedding, float32 on the CPU, and the loss of each step."""

    embedding: Float[Tensor, "1 n d"]
    losses: tuple[float, ...]


def random_views(
    size: tuple[int, int],
    latents: tuple[int, int, int],
    target: Target,
    *,
    portion: float,
    steps: int,
    generator: torch.Generator,
) -> Iterator[View]:
    """Yield for each step a new crop around the target, with `portion` of the picture's sides, and uniform noise."""
    for _ in range(steps):
        crop = random_crop(size, target.center, portion, generator)
        yield View(crop, torch.rand((1, *latents), generator=generator))


def learn_embedding(
    network: AttentionNetwork,
    picture: Float[Tensor, "1 3 h w"],
    target: Target,
    start: Float[Tensor, "1 n d"],
    views: Iterable[View],
    *,
    timestep: int,
    learning_rate: float,
    patience: int | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Learned:
    """Learn an embedding from `start` by a step of Adam per view, calling `on_step` with each loss.

    Learning stops early if the loss is flat over `patience` steps (see `is_flat`); None: use every view.

    Raises:
        UsageError: the loss is NaN or infinite.
    """
    with torch.enable_grad():
        embedding = start.to(picture.device, torch.float32).clone().requires_grad_()
        optimizer = torch.optim.Adam([embedding], lr=learning_rate)
        losses: list[float] = []
        for view in views:
            optimizer.zero_grad()
            loss = attention_loss(network, picture, target, embedding, view, timestep)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise UsageError(
                    f"features.learning_rate = {learning_rate}: the prompt's loss is {losses[-1]} at step "
                    f"{len(losses)}.",
                    "Lower it, or learn with features.dtype=float32.",
                )
            if on_step is not None:
                on_step(losses[-1])
            if patience is not None and is_flat(losses, patience):
                break
    return Learned(embedding.detach().cpu(), tuple(losses))


def attention_loss(
    network: AttentionNetwork,
    picture: Float[Tensor, "1 3 h w"],
    target: Target,
    embedding: Float[Tensor, "1 n d"],
    view: View,
    timestep: int,
) -> Float[Tensor, ""]:
    """Return the mean squared difference, over pixels and layers, of a view's attention and the target.

    Only the embedding gets a gradient.
    """
    size = picture.shape[-2], picture.shape[-1]
    latents = network.latents(view.crop.enlarged(picture))
    attention = at_size(network.maps(network.noised(latents, view.noise, timestep), timestep, embedding), size)[0]
    return F.mse_loss(attention, target.in_crop(view.crop, size).to(attention).expand_as(attention))


def at_size(maps: Sequence[Float[Tensor, "b _ _ _"]], size: tuple[int, int]) -> Float[Tensor, "b layers y x"]:
    """Return the mean over heads of each layer, resized bilinearly."""
    return torch.cat([resized(layer.mean(1, keepdim=True), size) for layer in maps], 1)


def is_flat(losses: Sequence[float], patience: int) -> bool:
    """Return whether the mean of `patience` successive losses had its minimum `patience` steps ago or earlier.

    A single loss says little: every step has another crop and noise.
    """
    count = len(losses) - patience + 1
    if count <= patience:
        return False
    means = [sum(losses[first : first + patience]) for first in range(count)]
    return min(range(count), key=means.__getitem__) < count - patience


class FrameView(NamedTuple):
    """A view of a frame: a crop, or a function from the peak (x, y) of the attention so far to a crop, and noise."""

    crop: Crop | Callable[[tuple[float, float]], Crop]
    noise: Float[Tensor, "1 c y x"]


def frame_views(
    size: tuple[int, int], latents: tuple[int, int, int], *, count: int, portion: float, seed: int
) -> list[FrameView]:
    """Return one view of the whole picture, or 4 and more random crops: in the corners first, then around the peak.

    `size` is (height, width) of the picture, `latents` (c, y, x) of its latents, `portion` the side of a crop as a part
    of the picture's.
    """
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.rand((1, *latents), generator=generator) for _ in range(count)]
    if count == 1:
        return [FrameView(whole(size), noises[0])]
    views: list[FrameView] = []
    for number, noise in enumerate(noises):

        def crop_around(point: tuple[float, float], number: int = number) -> Crop:
            # a generator of its own: a prompt's crop must not depend on the prompts before it
            return random_crop(size, point, portion, torch.Generator().manual_seed(seed + number))

        is_corner = number < len(corners(size))
        views.append(FrameView(crop_around(corners(size)[number]) if is_corner else crop_around, noise))
    return views


def read_attention(
    network: AttentionNetwork,
    picture: Float[Tensor, "1 3 h w"],
    embeddings: Float[Tensor, "p n d"],
    views: Sequence[FrameView],
    *,
    timestep: int,
    prompts_per_pass: int = 1,
) -> Float[Tensor, "p layers h w"]:
    """Return the attention to each prompt at the picture's size, per layer, averaged over heads and views.

    A pixel outside all views has 0. `prompts_per_pass` prompts share a pass of the U-Net.
    """
    size = picture.shape[-2], picture.shape[-1]
    total = torch.zeros(len(embeddings), len(network.layers), *size, device=picture.device)
    count = torch.zeros(len(embeddings), 1, *size, device=picture.device)
    for view in views:
        crops = _crops(view, total, count)
        latents = {crop: network.latents(crop.enlarged(picture)) for crop in dict.fromkeys(crops)}
        for first in range(0, len(embeddings), prompts_per_pass):
            part = slice(first, first + prompts_per_pass)
            noisy = network.noised(torch.cat([latents[crop] for crop in crops[part]]), view.noise, timestep)
            maps = network.maps(noisy, timestep, embeddings[part])
            for number, crop in enumerate(crops[part]):
                own = [layer[number : number + 1] for layer in maps]
                crop.of(total[first + number]).add_(at_size(own, (crop.height, crop.width))[0])
                crop.of(count[first + number]).add_(1)
    return total / count.clamp(min=1)


def _crops(view: FrameView, total: Float[Tensor, "p layers h w"], count: Float[Tensor, "p 1 h w"]) -> list[Crop]:
    """Return the crop of each prompt."""
    if isinstance(view.crop, Crop):
        return [view.crop] * len(total)
    width = total.shape[-1]
    places = (total / count.clamp(min=1)).mean(1).flatten(1).argmax(1).tolist()
    return [view.crop((place % width + 0.5, place // width + 0.5)) for place in places]


def one_map(attention: Float[Tensor, "*p layers h w"]) -> Float[Tensor, "*p h w"]:
    """Combine all layers into one map.

    As published, each layer becomes a distribution over the pixels by a softmax, and the distributions are averaged.
    The result is the logarithm of the mean, shifted so that equal layers stay as they are: its peak is that of the mean
    distribution, its values are shares of attention in [0, 1].
    """
    sums = attention.flatten(-2).logsumexp(-1)[..., None, None]
    # the layers' weights are 1 / their sums; dividing by the sum of the weights keeps equal layers as they are
    shift = (-sums).logsumexp(-3)
    combined: Tensor = (attention - sums).logsumexp(-3) - shift
    return combined


def pooled(attention: Float[Tensor, "*p h w"], stride: int) -> Float[Tensor, "*p y x"]:
    """Return the mean of each cell of stride x stride pixels."""
    cells: Tensor = F.avg_pool2d(attention, stride)
    return cells
