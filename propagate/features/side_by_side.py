"""Pictures of a batch on the CPU: each is one thread's, so that its sums are rounded alike whatever the threads.

oneDNN and torch split convolutions and normalizations among their threads, by rules that differ between CPUs, and so do
the last digits of the result. Pictures side by side keep as many threads busy, and busier: they never wait for one
another (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from propagate.threads import in_threads, usual_threads

_MOST_PICTURES = 8  # each holds the activations of a pass


def pictures_at_once() -> int:
    """Return how many pictures keep this process's threads busy, up to 8."""
    return min(usual_threads(), _MOST_PICTURES)


def one_by_one(
    compute: Callable[[Float[Tensor, "n 3 h w"], Sequence[int] | None], Float[Tensor, "n c y x"]],
    images: Float[Tensor, "b 3 h w"],
    indices: Sequence[int] | None,
) -> Float[Tensor, "b c y x"]:
    """Call a function with each picture of a batch, on a thread of its own, and return its results as a batch.

    Args:
        compute: takes pictures and their frames' indices; is called from several threads at a time.
        images: on the CPU.
        indices: of the frames; None: 0, 1, ...
    """
    if is_in_torch_dispatch_mode():  # an estimate of memory: its modes are this thread's own, and all pictures count
        return compute(images, indices)
    numbers = range(len(images)) if indices is None else indices
    results: list[Tensor] = [images] * len(images)

    def one(place: int) -> None:
        with torch.no_grad():
            results[place] = compute(images[place : place + 1], numbers[place : place + 1])

    in_threads(usual_threads())(one, list(range(len(images))))
    return results[0] if len(results) == 1 else torch.cat(results)
