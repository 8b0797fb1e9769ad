"""Reading where a picture attends to prompts: several looks at it, their mean, and one map of all layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.features.learned_prompts.crops import Crop, corners, random_crop, whole
from propagate.features.learned_prompts.cross_attention import AttentionNetwork
from propagate.features.learned_prompts.learning import at_size


class Look(NamedTuple):
    """One look at a picture.

    Attributes:
        crop: the part that is looked at, or what gives it where the attention so far has its peak, (x, y).
        noise: (1, c, y, x), of the latents, for all prompts.
    """

    crop: Crop | Callable[[tuple[float, float]], Crop]
    noise: Float[Tensor, "1 c y x"]


def looks_at(
    size: tuple[int, int], latents: tuple[int, int, int], *, count: int, portion: float, seed: int
) -> list[Look]:
    """One look at the whole picture, or at random crops: in the four corners first, then around the peak.

    Args:
        size: (height, width) of the picture.
        latents: (c, y, x) of its latents.
        count: of looks: 1, or 4 and more.
        portion: of the picture's sides that a crop has.
        seed: of noise and crops.
    """
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.rand((1, *latents), generator=generator) for _ in range(count)]
    if count == 1:
        return [Look(whole(size), noises[0])]
    looks: list[Look] = []
    for number, noise in enumerate(noises):

        def crop_around(point: tuple[float, float], number: int = number) -> Crop:
            # a generator of its own: a prompt's crop must not depend on which prompts came before
            return random_crop(size, point, portion, torch.Generator().manual_seed(seed + number))

        looks.append(Look(crop_around(corners(size)[number]) if number < len(corners(size)) else crop_around, noise))
    return looks


def read_attention(
    network: AttentionNetwork,
    picture: Float[Tensor, "1 3 h w"],
    embeddings: Float[Tensor, "p n d"],
    looks: Sequence[Look],
    *,
    timestep: int,
    prompts_per_pass: int = 1,
) -> Float[Tensor, "p layers h w"]:
    """The attention to each prompt at the picture's size, per layer: the mean over heads and over looks.

    Args:
        network: whose attention it is.
        picture: in [0, 1], both sides multiples of the network's factor.
        embeddings: of the prompts.
        looks: see `looks_at`; a pixel that none of them sees has 0.
        timestep: of the noise.
        prompts_per_pass: prompts that go through the U-Net together.
    """
    size = picture.shape[-2], picture.shape[-1]
    total = torch.zeros(len(embeddings), len(network.layers), *size, device=picture.device)
    count = torch.zeros(len(embeddings), 1, *size, device=picture.device)
    for look in looks:
        crops = _crops(look, total, count)
        latents = {crop: network.latents(crop.enlarged(picture)) for crop in dict.fromkeys(crops)}
        for first in range(0, len(embeddings), prompts_per_pass):
            part = slice(first, first + prompts_per_pass)
            noisy = network.noised(torch.cat([latents[crop] for crop in crops[part]]), look.noise, timestep)
            maps = network.maps(noisy, timestep, embeddings[part])
            for number, crop in enumerate(crops[part]):
                own = [layer[number : number + 1] for layer in maps]
                crop.of(total[first + number]).add_(at_size(own, (crop.height, crop.width))[0])
                crop.of(count[first + number]).add_(1)
    return total / count.clamp(min=1)


def _crops(look: Look, total: Float[Tensor, "p layers h w"], count: Float[Tensor, "p 1 h w"]) -> list[Crop]:
    """Of each prompt."""
    if isinstance(look.crop, Crop):
        return [look.crop] * len(total)
    width = total.shape[-1]
    places = (total / count.clamp(min=1)).mean(1).flatten(1).argmax(1).tolist()
    return [look.crop((place % width + 0.5, place // width + 0.5)) for place in places]


def one_map(attention: Float[Tensor, "*p layers h w"]) -> Float[Tensor, "*p h w"]:
    """One map of all layers.

    As published, each layer becomes a distribution over the pixels by a softmax, and the layers' distributions are
    averaged. Of the mean the logarithm is taken and shifted so that layers that agree give what they have: the peak is
    that of the mean distribution, the values are still shares of attention, in [0, 1].
    """
    sums = attention.flatten(-2).logsumexp(-1)[..., None, None]
    # the layers' weights are 1 / their sums; divided by the weights' sum, agreeing layers give themselves back
    shift = (-sums).logsumexp(-3)
    combined: Tensor = (attention - sums).logsumexp(-3) - shift
    return combined


def pooled(attention: Float[Tensor, "*p h w"], stride: int) -> Float[Tensor, "*p y x"]:
    """The mean of each cell of stride x stride pixels."""
    cells: Tensor = F.avg_pool2d(attention, stride)
    return cells
