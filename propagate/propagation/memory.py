"""The memory bank: the context frames of the transfer step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class MemoryBank:
    """Features and labels of the context frames: all anchors, the last predictions in a ring, some older ones.

    Predictions are numbered from 1. The bank holds the last `n_last` of them and, of those before, the last `n_older`
    whose number is a multiple of `older_every`. It allocates at the first frame and grows only when an anchor is added
    beyond `anchors`:

        bytes = (anchors + n_last + n_older) * h * w * (C * feature_bytes + L * 4)

    whatever the length of the video. Features must be normalized (`propagate.propagation.affinity.normalize`). Slots
    0 .. anchors - 1 hold the anchors in order, the ring follows, the older frames come last.

    Args:
        n_last: length of the ring; may be 0.
        anchors: annotated frames to reserve room for.
        n_older: number of predictions kept after they leave the ring, the newest ones; 0: none.
        older_every: keep one in this many; 1 keeps all, like a longer ring.
        dtype: precision of the stored features; None: `suitable_precision` of their device. Labels are float32.
    """

    def __init__(
        self, n_last: int, *, anchors: int = 1, n_older: int = 0, older_every: int = 5, dtype: torch.dtype | None = None
    ) -> None:
        if n_last < 0 or anchors < 1:
            raise ValueError(f"n_last must be at least 0 and anchors at least 1, not {n_last} and {anchors}")
        if n_older < 0 or older_every < 1:
            raise ValueError(f"n_older must be at least 0 and older_every at least 1, not {n_older} and {older_every}")
        self.n_last, self.n_older, self.older_every, self.dtype = n_last, n_older, older_every, dtype
        self.anchors = self._predictions = self._writes = 0
        self._room = anchors
        self._keys = self._labels = torch.empty(0)
        self._stamps: list[int] = []

    def __len__(self) -> int:
        """Context frames held now."""
        return self.anchors + self._held

    @property
    def nbytes(self) -> int:
        """Bytes allocated, used or not; 0 before the first frame."""
        return self._keys.nbytes + self._labels.nbytes

    def add_anchor(self, features: Float[Tensor, "c h w"], labels: Float[Tensor, "l h w"]) -> None:
        """Add an annotated frame, which is never evicted. Raises ValueError if its shapes do not fit the bank."""
        if self._stamps and self.anchors == self._room:
            self._keys = _with_slot(self._keys, self._room).contiguous(memory_format=torch.channels_last)
            self._labels = _with_slot(self._labels, self._room)
            self._stamps.insert(self._room, 0)
            self._room += 1
        self._write(self.anchors, features, labels)
        self.anchors += 1

    def add_prediction(self, features: Float[Tensor, "c h w"], labels: Float[Tensor, "l h w"]) -> None:
        """Add a propagated frame, evicted after `n_last` newer ones unless it is an older frame. Errors as above."""
        older = self._older_slot(self._predictions + 1 - self.n_last)  # of the prediction that leaves the ring
        if self.n_last:
            slot = self._room + self._predictions % self.n_last
            if older is not None:
                self._keys[older], self._labels[older] = self._keys[slot], self._labels[slot]
                self._stamp(older)
            self._write(slot, features, labels)
        elif older is not None:
            self._write(older, features, labels)
        self._predictions += 1

    def context(self) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n l h w"]]:
        """Return keys of unit length and labels in slot order, or raise ValueError if the bank is empty.

        They are views of the bank while it holds as many anchors as it has room for, else copies.
        """
        if not self._stamps:
            raise ValueError("the memory is empty: add an anchor first")
        if self.anchors == self._room:
            return self._keys[: len(self)], self._labels[: len(self)]
        return self._keys[self._used], self._labels[self._used]

    @property
    def stamps(self) -> tuple[int, ...]:
        """The version of each frame of `context`; it changes when the slot is written."""
        return tuple(self._stamps[slot] for slot in self._used)

    @property
    def _used(self) -> list[int]:
        return [*range(self.anchors), *range(self._room, self._room + self._held)]

    @property
    def _held(self) -> int:
        """Predictions held now; their slots are the first ones after the anchors' room."""
        left = max(self._predictions - self.n_last, 0)
        return min(self._predictions, self.n_last) + min(left // self.older_every, self.n_older)

    def _older_slot(self, number: int) -> int | None:
        """The slot of this prediction after it leaves the ring; None if it is dropped."""
        if not self.n_older or number < 1 or number % self.older_every:
            return None
        return self._room + self.n_last + (number // self.older_every - 1) % self.n_older

    def _write(self, slot: int, features: Tensor, labels: Tensor) -> None:
        if not self._stamps:
            slots, device = self._room + self.n_last + self.n_older, features.device
            self.dtype = self.dtype or suitable_precision(device)
            # channels_last, because the transfer step gathers whole cells
            self._keys = torch.empty(
                (slots, *features.shape), dtype=self.dtype, device=device, memory_format=torch.channels_last
            ).zero_()
            self._labels = torch.zeros(slots, *labels.shape, device=device)
            self._stamps = [0] * slots
        if features.shape != self._keys.shape[1:] or labels.shape != self._labels.shape[1:]:
            raise ValueError(
                f"features {tuple(features.shape)} and labels {tuple(labels.shape)} do not fit a memory of "
                f"{tuple(self._keys.shape[1:])} and {tuple(self._labels.shape[1:])}"
            )
        self._keys[slot] = features.to(self._keys.dtype)
        self._labels[slot] = labels.to(self._labels)
        self._stamp(slot)

    def _stamp(self, slot: int) -> None:
        self._writes += 1
        self._stamps[slot] = self._writes


def suitable_precision(device: torch.device) -> torch.dtype:
    """Return the dtype for stored features: float16 on CUDA, where it speeds up the transfer step several times."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _with_slot(stored: Tensor, at: int) -> Tensor:
    return torch.cat([stored[:at], torch.zeros_like(stored[:1]), stored[at:]])
