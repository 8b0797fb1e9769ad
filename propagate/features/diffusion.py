"""The diffusion core: (image, timestep, noise, block) -> features, for pixel and for latent models alike.

DIFT (Tang et al., NeurIPS 2023; Tsingularity/dift) noises a picture to timestep t, runs the denoising network once
and takes an inner activation as the picture's features, averaged over several draws of the noise. What differs
between models is what is noised (pixels, space-to-depth pixels, latents) and how the network is called; what is the
same is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _TapReached(Exception):
    """Unwinds a forward pass at the tapped module; carries its output."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


@contextmanager
def _stop_after(module: nn.Module) -> Iterator[None]:
    def raise_output(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _TapReached(output)

    handle = module.register_forward_hook(raise_output)
    try:
        yield
    finally:
        handle.remove()


def run_until(module: nn.Module, forward: Callable[[], object]) -> Tensor:
    """The output of `module` in `forward()`, which is not run any further.

    Raises:
        RuntimeError: the forward pass ended without ever reaching the module.
    """
    with _stop_after(module):
        try:
            forward()
        except _TapReached as reached:
            return reached.output
    raise RuntimeError(f"the forward pass never reached the tapped {type(module).__name__}")
