"""The diffusion core: (image, timestep, noise, block) -> features, for pixel and latent models alike.

DIFT (Tang et al., NeurIPS 2023; Tsingularity/dift) noises a picture to timestep t, runs the denoising network once and
takes an inner activation as the features, averaged over several noise draws. Models differ in what is noised (pixels,
space-to-depth pixels, latents) and in how the network is called; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

NoiseMode = Literal["shared", "fresh", "antithetic"]


@dataclass(frozen=True)
class Noise:
    """The noise draws of an ensemble, a function of the seed, drawn on the CPU in float32 whatever the device.

    Modes: "shared": the same draws for every frame, so that they cancel when frames are compared; "fresh": frame i
    draws with seed + i, as the unseeded reference does; "antithetic": shared, in pairs eps and -eps, which cancel the
    odd part of the noise's effect (an odd ensemble's last draw has no partner).
    """

    ensemble_size: int = 1  # draws per frame
    seed: int = 0  # of a local generator
    mode: NoiseMode = "shared"

    def draw(self, shape: tuple[int, ...], index: int = 0) -> Float[Tensor, "e c h w"]:
        """Return the draws for the frame with this index; `shape` is (c, h, w)."""
        count = -(-self.ensemble_size // 2) if self.mode == "antithetic" else self.ensemble_size
        seed = self.seed + index if self.mode == "fresh" else self.seed
        noise = torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed))
        if self.mode == "antithetic":
            noise = torch.stack([noise, -noise], 1).flatten(0, 1)[: self.ensemble_size]
        return noise

    def draw_frames(
        self, shape: tuple[int, ...], count: int, indices: Sequence[int] | None = None
    ) -> Float[Tensor, "e n c h w"]:
        """Return the draws for a batch of `count` frames (indices None: 0, 1, ...); n is 1 where frames share them."""
        if self.mode != "fresh":
            return self.draw(shape).unsqueeze(1)
        return torch.stack([self.draw(shape, index) for index in (range(count) if indices is None else indices)], 1)


def linear_alphas_cumprod(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Float[Tensor, " t"]:
    """Return the linear noise schedule (Ho et al. 2020; guided-diffusion) in float32, computed in float64."""
    betas = torch.linspace(start, end, steps, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def ensemble_features(
    clean: Float[Tensor, "b c h w"] | Float[Tensor, "e b c h w"],
    activation: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n d y x"]],
    *,
    noise: Noise,
    alpha_bar: float,
    indices: Sequence[int] | None = None,
    draws_per_pass: int = 1,
) -> Float[Tensor, "b d y x"]:
    """Return the mean activation over the noise draws.

    Args:
        clean: pixels, rearranged pixels or scaled latents; a leading axis holds one input per draw (sampled latents).
        activation: runs the network on noised inputs up to the tapped block.
        noise: the noise draws.
        alpha_bar: alphas_cumprod[timestep]; the noised input is sqrt(alpha_bar) * clean + sqrt(1 - alpha_bar) * eps.
        indices: frame indices, for fresh noise; None: 0, 1, ...
        draws_per_pass: draws that share a pass. Memory grows with it; the result changes by rounding only.
    """
    frames, *shape = clean.shape[-4:]
    draws = noise.draw_frames(tuple(shape), frames, indices).to(clean)
    own = clean.expand(len(draws), -1, -1, -1, -1)
    total: Tensor | None = None
    for start in range(0, len(draws), draws_per_pass):
        part = slice(start, start + draws_per_pass)
        noisy = alpha_bar**0.5 * own[part] + (1 - alpha_bar) ** 0.5 * draws[part]
        output = activation(noisy.flatten(0, 1)).float()
        # one after the other: the rounding of the sum must not depend on draws_per_pass
        for draw in output.view(-1, frames, *output.shape[1:]):
            total = draw if total is None else total + draw
    assert total is not None
    return total / len(draws)


def draws_at_once(draws: int | None, ensemble_size: int, device: torch.device) -> int:
    """Return the draws per pass, at most the ensemble; None: all on a GPU, one on a CPU, where more gain nothing."""
    if draws is None:
        return 1 if device.type == "cpu" else ensemble_size
    return min(draws, ensemble_size)


@contextmanager
def tapped(modules: Sequence[nn.Module], on_output: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call `on_output(number of the module, its first output)` each time a module has run."""

    def hook_for(number: int) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            on_output(number, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [module.register_forward_hook(hook_for(number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _TapReached(Exception):  # noqa: N818  not an error: it unwinds a forward pass
    def __init__(self, output: Tensor) -> None:
        self.output = output


def run_until(module: nn.Module, forward: Callable[[], object]) -> Tensor:
    """Return the first output of `module` in `forward()` and stop there, or raise a RuntimeError if it is not run."""

    def stop(_number: int, output: Tensor) -> None:
        raise _TapReached(output)

    with tapped([module], stop):
        try:
            forward()
        except _TapReached as reached:
            return reached.output
    raise RuntimeError(f"the forward pass never reached the tapped {type(module).__name__}")
