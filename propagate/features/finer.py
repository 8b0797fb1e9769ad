"""Two maps of one pass: an extractor's features, and those of a smaller cell that its network makes on the way on.

`propagation.finer` searches the first and compares the second (`propagation.finer`). On their way to the propagator,
through passes, batches and caches, both are one map on the coarse grid: a cell's own channels, then its children's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor, nn

from propagate.errors import UsageError
from propagate.features.diffusion.core import run_until
from propagate.features.diffusion.taps import tapped
from propagate.features.extractor import EnsembleExtractor, FeatureExtractor, FinerExtractor, SideBySideExtractor
from propagate.propagation.finer import by_cell, finer_factor, from_cells


class BothMaps:
    """A `FinerExtractor` whose call gives both maps, packed.

    Args:
        extractor: it is left as it is, but for `draws_per_pass`, which is its own.
        finer_stride: its own, which is not None.

    Attributes:
        multiple: as the extractor's, and whole cells of the coarse map, so that each has the same number of children.
        channels: of a packed feature.
        coarse_channels, finer_channels: of a feature of either map.
        factor: children along a side of a coarse cell.
    """

    def __init__(self, extractor: FinerExtractor, finer_stride: int) -> None:
        self.stride, self.finer_stride = extractor.stride, finer_stride
        self.multiple = lcm(extractor.multiple, extractor.stride)
        self.factor = extractor.stride // finer_stride
        self.coarse_channels, self.finer_channels = extractor.channels, extractor.finer_channels
        self.channels = self.coarse_channels + self.factor**2 * self.finer_channels
        self.device = torch.device(getattr(extractor, "device", "cpu"))
        self.side_by_side = isinstance(extractor, SideBySideExtractor) and extractor.side_by_side
        self._extractor = extractor

    @property
    def draws_per_pass(self) -> int:
        """See `EnsembleExtractor`; 1 where it is none."""
        return self._extractor.draws_per_pass if isinstance(self._extractor, EnsembleExtractor) else 1

    @draws_per_pass.setter
    def draws_per_pass(self, draws: int) -> None:
        if isinstance(self._extractor, EnsembleExtractor):
            self._extractor.draws_per_pass = draws

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b e y x"]:
        """See `FinerExtractor.with_finer`."""
        return self._extractor.with_finer(images, indices)

    def split(self, features: Float[Tensor, "e h w"]) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "d y x"]]:
        """The extractor's features of a frame, and the finer ones."""
        coarse, children = features.tensor_split([self.coarse_channels])
        return coarse, from_cells(children, self.factor)


def both_maps(extractor: FeatureExtractor) -> BothMaps:
    """The extractor as one that gives both maps.

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
    """Both maps as one, what `BothMaps.split` takes apart again; float32.

    Raises:
        ValueError: the finer map does not divide every cell alike.
    """
    factor = finer_factor((coarse.shape[-2], coarse.shape[-1]), (finer.shape[-2], finer.shape[-1]))
    return torch.cat([coarse.float(), by_cell(finer.float(), factor)], 1)


def run_until_finer(tap: nn.Module, finer_tap: nn.Module, forward: Callable[[], object]) -> Float[Tensor, "b e h w"]:
    """The outputs of two modules in `forward()`, packed; it is not run beyond the second one.

    Raises:
        RuntimeError: the forward pass ended without ever reaching the second.
    """
    outputs: list[Tensor] = []
    with tapped([tap], lambda _number, output: outputs.append(output)):
        finer = run_until(finer_tap, forward)
    return pack(outputs[0], finer)


def check_finer(index: int, finer_index: int | None, strides: Sequence[int]) -> int | None:
    """The stride of the block that gives the finer map; None where there is to be none.

    Args:
        index: the block that gives the features.
        finer_index: the block that gives the finer map.
        strides: of all blocks, in the order in which they are computed.

    Raises:
        UsageError: there is no such block, or its cells are no parts of the features' cells.
    """
    if finer_index is None:
        return None
    later = {i: stride for i, stride in enumerate(strides) if stride < strides[index] and i > index}
    if finer_index not in later:
        listed = ", ".join(f"{i} (stride {stride})" for i, stride in later.items())
        raise UsageError(
            f"features.finer_ft_index = {finer_index}: block {index} has stride {strides[index]}, and a finer one has "
            "to come after it.",
            f"Choose {listed}." if listed else "There is none; leave it out, or lower features.up_ft_index.",
        )
    return later[finer_index]
