"""Measure the memory of a computation without running it, by torch's fake tensors, which have no content."""

from __future__ import annotations

import gc
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Footprint:
    """Bytes of a computation on the device of its result."""

    given: int  # of tensors that existed before and were used: weights
    created: int  # peak of the tensors that it creates, the result included
    device: str  # type of the device


def dry_run(computation: Callable[[], Tensor]) -> Footprint:
    """Return the memory of a computation, which must create its inputs (`torch.empty`) but may refer to weights.

    Memory inside one operation, such as the workspace of a convolution, is not seen. Raises RuntimeError if the
    computation keeps a tensor, which would have no content, and any error of the computation, which may need a tensor's
    content.
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), _Count() as count:
        device = computation().device.type
    if any(count.live.values()):
        gc.collect()  # reference cycles
    if any(count.live.values()):
        raise RuntimeError("it keeps tensors from one call to the next")
    return Footprint(sum(count.given[device].values()), count.peak[device], device)


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of all results that are not views, until they are released."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given: dict[str, dict[int, int]] = defaultdict(dict)
        self.live: dict[str, int] = defaultdict(int)
        self.peak: dict[str, int] = defaultdict(int)
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            if not isinstance(tensor, FakeTensor):
                storage = tensor.untyped_storage()
                self.given[tensor.device.type][storage.data_ptr()] = storage.nbytes()
        result = func(*args, **(kwargs or {}))
        if all(part.alias_info is None for part in func._schema.returns):
            for tensor in _tensors(result):
                self._add(tensor.untyped_storage(), tensor.device.type)
        return result

    def _add(self, storage: torch.UntypedStorage, device: str) -> None:
        if id(storage) not in self._known:  # else an undeclared view
            self._known.add(id(storage))
            self.live[device] += storage.nbytes()
            self.peak[device] = max(self.peak[device], self.live[device])
            weakref.finalize(storage, self._release, id(storage), device, storage.nbytes())

    def _release(self, storage: int, device: str, size: int) -> None:
        self._known.discard(storage)
        self.live[device] -= size


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]
