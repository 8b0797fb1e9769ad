"""The diffusion core: (image, timestep, noise, block) -> features, for pixel and for latent models alike.

DIFT (Tang et al., NeurIPS 2023; Tsingularity/dift) noises a picture to timestep t, runs the denoising network once
and takes an inner activation as the picture's features, averaged over several draws of the noise. What differs
between models is what is noised (pixels, space-to-depth pixels, latents) and how the network is called; what is the
same is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from propagate.features.diffusion.taps import tapped

NoiseMode = Literal["shared", "fresh", "antithetic"]


@dataclass(frozen=True)
class Noise:
    """The draws of an ensemble, a function of the seed and of nothing else that could vary between runs.

    Drawn on the CPU in float32 whatever the device, so that all devices see the same noise.

    Attributes:
        ensemble_size: draws per frame.
        seed: of the local generator; the global one is left alone.
        mode: "shared": the same draws for every frame, so that they cancel when frames are compared; "fresh": frame i
            draws with seed + i, as the unseeded reference does; "antithetic": shared, in pairs eps and -eps, which
            cancel the odd part of the noise's effect (an odd ensemble's last draw stays without its partner).
    """

    ensemble_size: int = 1
    seed: int = 0
    mode: NoiseMode = "shared"

    def draw(self, shape: tuple[int, ...], index: int = 0) -> Float[Tensor, "e c h w"]:
        """The draws for the frame with this index; `shape` is (c, h, w)."""
        count = -(-self.ensemble_size // 2) if self.mode == "antithetic" else self.ensemble_size
        seed = self.seed + index if self.mode == "fresh" else self.seed
        noise = torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed))
        if self.mode == "antithetic":
            noise = torch.stack([noise, -noise], 1).flatten(0, 1)[: self.ensemble_size]
        return noise

    def draw_frames(
        self, shape: tuple[int, ...], count: int, indices: Sequence[int] | None = None
    ) -> Float[Tensor, "e n c h w"]:
        """The draws for a batch of `count` frames; n is the count, or 1 where all frames have the same draws.

        Args:
            shape: (c, h, w) of one draw.
            count: frames in the batch.
            indices: their indices; None: 0, 1, ...
        """
        if self.mode != "fresh":
            return self.draw(shape).unsqueeze(1)
        return torch.stack([self.draw(shape, index) for index in (range(count) if indices is None else indices)], 1)


def linear_alphas_cumprod(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Float[Tensor, " t"]:
    """The linear noise schedule (Ho et al. 2020; guided-diffusion), computed in float64, returned in float32."""
    betas = torch.linspace(start, end, steps, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def ensemble_features(
    clean: Float[Tensor, "b c h w"] | Float[Tensor, "e b c h w"],
    activation: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n d y x"]],
    *,
    noise: Noise,
    kept: float,
    indices: Sequence[int] | None = None,
    draws_per_pass: int = 1,
) -> Float[Tensor, "b d y x"]:
    """The mean activation over the noise draws.

    Args:
        clean: what the model noises: pixels, rearranged pixels or scaled latents; with a leading axis where every draw
            has a clean input of its own (sampled latents).
        activation: runs the network on noised inputs as far as the tapped block.
        noise: the draws.
        kept: alphas_cumprod[timestep]; the noised input is sqrt(kept) * clean + sqrt(1 - kept) * eps.
        indices: frame indices of the batch, for fresh noise; None: 0, 1, ...
        draws_per_pass: draws that go through the network together. Memory grows with it, and with nothing else here;
            the result does not depend on it, beyond what the network itself rounds otherwise in another batch.
    """
    frames, *shape = clean.shape[-4:]
    draws = noise.draw_frames(tuple(shape), frames, indices).to(clean)
    own = clean.expand(len(draws), -1, -1, -1, -1)
    total: Tensor | None = None
    for start in range(0, len(draws), draws_per_pass):
        part = slice(start, start + draws_per_pass)
        noisy = kept**0.5 * own[part] + (1 - kept) ** 0.5 * draws[part]
        output = activation(noisy.flatten(0, 1)).float()
        # one after the other: the rounding of the sum must not depend on how many draws share a pass
        for draw in output.view(-1, frames, *output.shape[1:]):
            total = draw if total is None else total + draw
    assert total is not None
    return total / len(draws)


def draws_at_once(wanted: int | None, ensemble_size: int, device: torch.device) -> int:
    """Draws that share a pass: as many as are wanted and there are; None: all on a GPU, one on a CPU.

    A CPU gains nothing by more, and memory grows with them.
    """
    if wanted is None:
        return 1 if device.type == "cpu" else ensemble_size
    return min(wanted, ensemble_size)


class _TapReached(Exception):  # noqa: N818  not an error: it unwinds a forward pass
    def __init__(self, output: Tensor) -> None:
        self.output = output


def run_until(module: nn.Module, forward: Callable[[], object]) -> Tensor:
    """The output of `module` in `forward()`, which is not run any further; of several outputs, the first.

    Raises:
        RuntimeError: the forward pass ended without ever reaching the module.
    """

    def stop(_number: int, output: Tensor) -> None:
        raise _TapReached(output)

    with tapped([module], stop):
        try:
            forward()
        except _TapReached as reached:
            return reached.output
    raise RuntimeError(f"the forward pass never reached the tapped {type(module).__name__}")
