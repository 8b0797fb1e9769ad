"""Two maps from one pass: an extractor's features, and a map of smaller cells that its network produces on the way.

`propagation.finer` searches the first and compares the second. Through passes, batches and caches both travel as one
map on the coarse grid: a cell's own channels, then its children's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import lcm
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from propagate.errors import UsageError
from propagate.features.diffusion.core import run_until, tapped
from propagate.features.extractor import EnsembleExtractor, FeatureExtractor, Features, FinerExtractor, Images, Indices
from propagate.propagation.finer import by_cell, finer_factor, from_cells


class WithFiner(ABC):
    """Base of extractors with a finer map, whose two calls differ only in what is tapped."""

    @torch.no_grad()
    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FeatureExtractor`."""
        return self._features(images, indices, finer=False)

    @torch.no_grad()
    def with_finer(self, images: Images, indices: Indices = None) -> Features:
        """See `FinerExtractor`; only where `finer_stride` is not None."""
        return self._features(images, indices, finer=True)

    @abstractmethod
    def _features(self, images: Images, indices: Indices, *, finer: bool) -> Features:
        """Return the features, or with `finer` those of the finer map."""


class BothMaps:
    """Wraps a `FinerExtractor`, without changing it, so that a call returns both maps, packed.

    Attributes:
        multiple: multiple of the extractor's and of its stride, so that every coarse cell has all its children.
        channels: channels of a packed feature.
        factor: children along a side of a coarse cell.
    """

    def __init__(self, extractor: FinerExtractor, finer_stride: int) -> None:
        self.stride, self.finer_stride = extractor.stride, finer_stride
        self.multiple = lcm(extractor.multiple, extractor.stride)
        self.factor = extractor.stride // finer_stride
        self.coarse_channels, self.finer_channels = extractor.channels, extractor.finer_channels
        self.channels = self.coarse_channels + self.factor**2 * self.finer_channels
        self.device = torch.device(getattr(extractor, "device", "cpu"))
        self.side_by_side = bool(getattr(extractor, "side_by_side", False))
        self._extractor = extractor

    @property
    def draws_per_pass(self) -> int:
        """The extractor's own; 1 where it is no `EnsembleExtractor`."""
        return self._extractor.draws_per_pass if isinstance(self._extractor, EnsembleExtractor) else 1

    @draws_per_pass.setter
    def draws_per_pass(self, draws: int) -> None:
        if isinstance(self._extractor, EnsembleExtractor):
            self._extractor.draws_per_pass = draws

    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FinerExtractor.with_finer`."""
        return self._extractor.with_finer(images, indices)

    def split(self, features: Float[Tensor, "e h w"]) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "d y x"]]:
        """Return the coarse and the finer features of a frame."""
        coarse, children = features.tensor_split([self.coarse_channels])
        return coarse, from_cells(children, self.factor)


def both_maps(extractor: FeatureExtractor) -> BothMaps:
    """Return the extractor as one that computes both maps.

    Raises:
        UsageError: it has no finer map.
    """
    if isinstance(extractor, BothMaps):
        return extractor
    if not isinstance(extractor, FinerExtractor) or extractor.finer_stride is None:
        raise UsageError(
            f"propagation.finer: the features have no map that is finer than their cells of {extractor.stride} pixels.",
            "Leave it out, or choose features with one: compact with features.block 2 or 3, dift_adm with "
            "features.finer_ft_index=8, dift_sd or cleandift with up_ft_index=1 and finer_ft_index=2.",
        )
    return BothMaps(extractor, extractor.finer_stride)


def pack(coarse: Float[Tensor, "b c h w"], finer: Float[Tensor, "b d y x"]) -> Float[Tensor, "b e h w"]:
    """Join both maps into one, float32; `BothMaps.split` is the inverse."""
    factor = finer_factor((coarse.shape[-2], coarse.shape[-1]), (finer.shape[-2], finer.shape[-1]))
    return torch.cat([coarse.float(), by_cell(finer.float(), factor)], 1)


def tap_outputs(tap: nn.Module, finer_tap: nn.Module | None, forward: Callable[[], object]) -> Features:
    """Return a module's output in `forward()`, packed with that of a later module if there is one; see `run_until`."""
    if finer_tap is None:
        return run_until(tap, forward)
    outputs: list[Tensor] = []
    with tapped([tap], lambda _number, output: outputs.append(output)):
        finer = run_until(finer_tap, forward)
    return pack(outputs[0], finer)


class Block(NamedTuple):
    """Pixels per cell and channels of the output of a decoder's block."""

    stride: int
    channels: int


def check_blocks(blocks: Sequence[Block], index: int, finer_index: int | None) -> Block | None:
    """Check up_ft_index and finer_ft_index, and return the block of the finer map; None if there is no such map.

    Raises:
        UsageError: there is no such block, or the finer one does not come later, or its cells are not smaller.
    """
    if index >= len(blocks):
        listed = "; ".join(f"{i}: stride {block.stride}, {block.channels} channels" for i, block in enumerate(blocks))
        raise UsageError(f"features.up_ft_index = {index}: there is no such block.", f"Blocks: {listed}.")
    if finer_index is None:
        return None
    stride = blocks[index].stride
    later = {i: block for i, block in enumerate(blocks) if block.stride < stride and i > index}
    if finer_index not in later:
        listed = ", ".join(f"{i} (stride {block.stride})" for i, block in later.items())
        raise UsageError(
            f"features.finer_ft_index = {finer_index}: block {index} has stride {stride}, and a finer one has to come "
            "after it.",
            f"Choose {listed}." if listed else "There is none; leave it out, or lower features.up_ft_index.",
        )
    return later[finer_index]
