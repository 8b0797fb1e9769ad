"""Learning a prompt's embedding: attention to it should be where a joint or an object is (Hedlin et al. 2023).

Unsupervised Semantic Correspondence Using Stable Diffusion (NeurIPS 2023; LDM_correspondences). All vectors of an
embedding are learned, from random ones; only what attends to the second of them is compared with the target.
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
from propagate.features.learned_prompts.crops import Crop, random_crop, resized
from propagate.features.learned_prompts.cross_attention import AttentionNetwork
from propagate.features.learned_prompts.targets import Target


class View(NamedTuple):
    """What one step looks at.

    Attributes:
        crop: of the picture.
        noise: (1, c, y, x), of the latents.
    """

    crop: Crop
    noise: Float[Tensor, "1 c y x"]


class Learned(NamedTuple):
    """A learned embedding.

    Attributes:
        embedding: (1, n, d) float32, on the CPU.
        losses: of each step.
    """

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
    """A crop around the target and uniform noise, drawn anew for each step.

    Args:
        size: (height, width) of the picture.
        latents: (c, y, x) of its latents.
        target: what crops are to keep.
        portion: of the picture's sides that a crop has.
        steps: how many.
        generator: gives all of it.
    """
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
    """Take a step of Adam per view, and stop early where the loss has become flat.

    The loss is the mean squared difference, over pixels and layers, of the target and the mean over heads of the
    attention, brought to the picture's size.

    Args:
        network: whose attention it is.
        picture: in [0, 1].
        target: what the attention should look like.
        start: the embedding before the first step.
        views: one per step.
        timestep: of the noise.
        learning_rate: Adam's.
        patience: see `is_flat`; None: every view is used.
        on_step: called with the loss of each step.

    Raises:
        UsageError: the loss is no longer a number.
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
    """The loss of one view; its gradient reaches the embedding alone."""
    size = picture.shape[-2], picture.shape[-1]
    latents = network.latents(view.crop.enlarged(picture))
    maps = network.maps(network.noised(latents, view.noise, timestep), timestep, embedding)
    found = at_size(maps, size)[0]
    wanted = target.in_crop(view.crop, size).to(found)
    return F.mse_loss(found, wanted.expand_as(found))


def at_size(maps: Sequence[Float[Tensor, "b _ _ _"]], size: tuple[int, int]) -> Float[Tensor, "b layers y x"]:
    """The mean over heads of each layer, bilinearly at a size."""
    return torch.cat([resized(layer.mean(1, keepdim=True), size) for layer in maps], 1)


def is_flat(losses: Sequence[float], patience: int) -> bool:
    """Whether the mean of `patience` losses in a row was last at its least `patience` steps ago.

    A single loss says little: every step sees another crop and another noise.
    """
    count = len(losses) - patience + 1
    if count <= patience:
        return False
    means = [sum(losses[first : first + patience]) for first in range(count)]
    return min(range(count), key=means.__getitem__) < count - patience
