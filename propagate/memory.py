"""The memory bank: what the transfer step looks back at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class MemoryBank:
    """Features and labels of the context frames: anchors for ever, the last `n_last` predictions in a ring.

    Memory is taken at the first frame and grows only when an anchor is added beyond `anchors`:

        bytes = (anchors + n_last) * h * w * (C * feature_bytes + L * 4)

    whatever the length of the video. Features come in normalized (`propagate.affinity.normalize`). Slots
    0 .. anchors - 1 hold the anchors in the order in which they came, the ring follows.

    Args:
        n_last: length of the ring; 0 keeps anchors only.
        anchors: annotated frames to make room for.
        dtype: of the stored features; labels are float32.
    """

    def __init__(self, n_last: int, *, anchors: int = 1, dtype: torch.dtype = torch.float32) -> None:
        if n_last < 0 or anchors < 1:
            raise ValueError(f"n_last must be at least 0 and anchors at least 1, not {n_last} and {anchors}")
        self.n_last, self.dtype = n_last, dtype
        self._room = anchors
        self._anchors = 0
        self._predictions = 0
        self._keys: Tensor | None = None
        self._labels: Tensor | None = None

    def __len__(self) -> int:
        """Context frames held now."""
        return self._anchors + min(self._predictions, self.n_last)

    @property
    def anchors(self) -> int:
        """Anchors held now."""
        return self._anchors

    @property
    def nbytes(self) -> int:
        """Bytes taken, full or not; 0 before the first frame."""
        return sum(t.element_size() * t.nelement() for t in (self._keys, self._labels) if t is not None)

    def add_anchor(self, features: Float[Tensor, "c h w"], labels: Float[Tensor, "l h w"]) -> None:
        """Keep an annotated frame for ever.

        Raises:
            ValueError: channels, labels or grid differ from the frames before.
        """
        if self._keys is not None and self._anchors == self._room:
            self._make_room()
        self._write(self._anchors, features, labels)
        self._anchors += 1

    def add_prediction(self, features: Float[Tensor, "c h w"], labels: Float[Tensor, "l h w"]) -> None:
        """Keep a propagated frame until `n_last` newer ones have come.

        Raises:
            ValueError: channels, labels or grid differ from the frames before.
        """
        if self.n_last:
            self._write(self._room + self._predictions % self.n_last, features, labels)
            self._predictions += 1

    def context(self) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n l h w"]]:
        """Keys of unit length and labels: the anchors, then the ring (in slot order; the transfer takes a union).

        Views of the bank without a copy, as long as there are as many anchors as room was made for.

        Raises:
            ValueError: the bank is empty.
        """
        if self._keys is None or self._labels is None:
            raise ValueError("the memory is empty: add an anchor first")
        end = self._room + min(self._predictions, self.n_last)
        if self._anchors == self._room:
            return self._keys[:end], self._labels[:end]
        used = [*range(self._anchors), *range(self._room, end)]
        return self._keys[used], self._labels[used]

    def _write(self, slot: int, features: Tensor, labels: Tensor) -> None:
        if self._keys is None or self._labels is None:
            slots = self._room + self.n_last
            # cells of all channels side by side: the transfer step gathers cells
            self._keys = torch.zeros(slots, *features.shape, dtype=self.dtype, device=features.device).contiguous(
                memory_format=torch.channels_last
            )
            self._labels = torch.zeros(slots, *labels.shape, device=features.device)
        if features.shape != self._keys.shape[1:] or labels.shape != self._labels.shape[1:]:
            raise ValueError(
                f"features {tuple(features.shape)} and labels {tuple(labels.shape)} do not fit a memory of "
                f"{tuple(self._keys.shape[1:])} and {tuple(self._labels.shape[1:])}"
            )
        self._keys[slot] = features.to(self.dtype)
        self._labels[slot] = labels.to(self._labels)

    def _make_room(self) -> None:
        assert self._keys is not None
        assert self._labels is not None
        self._keys = _with_slot(self._keys, self._room).contiguous(memory_format=torch.channels_last)
        self._labels = _with_slot(self._labels, self._room)
        self._room += 1


def _with_slot(stored: Tensor, at: int) -> Tensor:
    return torch.cat([stored[:at], torch.zeros_like(stored[:1]), stored[at:]])
