"""Looking at what modules of a network give out during a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def tapped(modules: Sequence[nn.Module], look: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call `look(number of the module, its output)` each time a module has run; of several outputs, with the first."""

    def hook_for(number: int) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            look(number, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [module.register_forward_hook(hook_for(number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
