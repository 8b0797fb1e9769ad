"""The memory bank: what the transfer step looks back at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class MemoryBank:
    """Features and labels of the context frames: anchors for ever, the last predictions in a ring, some older ones.

    Of the predictions (the first one added has number 1) those are held

    - whose number is among the last `n_last`,
    - and, of those before, the last `n_older` whose number is a multiple of `older_every`.

    Memory is taken at the first frame and grows only when an anchor is added beyond `anchors`:

        bytes = (anchors + n_last + n_older) * h * w * (C * feature_bytes + L * 4)

    whatever the length of the video. Features come in normalized (`propagate.propagation.affinity.normalize`). Slots
    0 .. anchors - 1 hold the anchors in the order in which they came, the ring follows, the older frames come last.

    Args:
        n_last: length of the ring; 0 keeps none of the last.
        anchors: annotated frames to make room for.
        n_older: predictions that are kept when they leave the ring, the oldest making way for the newest; 0: none.
        older_every: one in so many predictions is kept so; 1: all, which is a longer ring.
        dtype: of the stored features; None: `suitable_precision` of their device. Labels are float32.
    """

    def __init__(
        self,
        n_last: int,
        *,
        anchors: int = 1,
        n_older: int = 0,
        older_every: int = 5,
        dtype: torch.dtype | None = None,
    ) -> None:
        if n_last < 0 or anchors < 1:
            raise ValueError(f"n_last must be at least 0 and anchors at least 1, not {n_last} and {anchors}")
        if n_older < 0 or older_every < 1:
            raise ValueError(f"n_older must be at least 0 and older_every at least 1, not {n_older} and {older_every}")
        self.n_last, self.n_older, self.older_every, self.dtype = n_last, n_older, older_every, dtype
        self._room = anchors
        self._anchors = 0
        self._predictions = 0
        self._keys: Tensor | None = None
        self._labels: Tensor | None = None
        self._stamps: list[int] = []
        self._writes = 0

    def __len__(self) -> int:
        """Context frames held now."""
        return self._anchors + self._held

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
        """Keep a propagated frame until `n_last` newer ones have come, and longer if it is one of the older frames.

        Raises:
            ValueError: channels, labels or grid differ from the frames before.
        """
        number = self._predictions + 1
        leaving = number - self.n_last  # it has no place in the ring any more
        older = self._older_slot(leaving)
        if self.n_last:
            slot = self._room + self._predictions % self.n_last
            if older is not None:
                self._copy(slot, older)
            self._write(slot, features, labels)
        elif older is not None:
            self._write(older, features, labels)
        self._predictions = number

    def context(self) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n l h w"]]:
        """Keys of unit length and labels: the anchors, then the others (in slot order; the transfer takes a union).

        Views of the bank without a copy, as long as there are as many anchors as room was made for.

        Raises:
            ValueError: the bank is empty.
        """
        if self._keys is None or self._labels is None:
            raise ValueError("the memory is empty: add an anchor first")
        if self._anchors == self._room:
            return self._keys[: len(self)], self._labels[: len(self)]
        return self._keys[self._used], self._labels[self._used]

    @property
    def stamps(self) -> tuple[int, ...]:
        """A number for every frame of `context`, which stays as long as what is stored of the frame does."""
        return tuple(self._stamps[slot] for slot in self._used)

    @property
    def _used(self) -> list[int]:
        return [*range(self._anchors), *range(self._room, self._room + self._held)]

    @property
    def _held(self) -> int:
        """Predictions held now; their slots are the first ones after the anchors' room."""
        left = max(self._predictions - self.n_last, 0)
        return min(self._predictions, self.n_last) + min(left // self.older_every, self.n_older)

    def _older_slot(self, number: int) -> int | None:
        """Where the prediction of this number is kept after the ring; None where it is not."""
        if not self.n_older or number < 1 or number % self.older_every:
            return None
        return self._room + self.n_last + (number // self.older_every - 1) % self.n_older

    def _copy(self, source: int, target: int) -> None:
        assert self._keys is not None
        assert self._labels is not None
        self._keys[target], self._labels[target] = self._keys[source], self._labels[source]
        self._stamp(target)

    def _write(self, slot: int, features: Tensor, labels: Tensor) -> None:
        if self._keys is None or self._labels is None:
            slots = self._room + self.n_last + self.n_older
            self.dtype = self.dtype or suitable_precision(features.device)
            # cells of all channels side by side: the transfer step gathers cells
            self._keys = torch.empty(
                (slots, *features.shape),
                dtype=self.dtype,
                device=features.device,
                memory_format=torch.channels_last,
            ).zero_()
            self._labels = torch.zeros(slots, *labels.shape, device=features.device)
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

    def _make_room(self) -> None:
        assert self._keys is not None
        assert self._labels is not None
        self._keys = _with_slot(self._keys, self._room).contiguous(memory_format=torch.channels_last)
        self._labels = _with_slot(self._labels, self._room)
        self._stamps.insert(self._room, 0)
        self._room += 1


def suitable_precision(device: torch.device) -> torch.dtype:
    """Of stored features: float16 on CUDA, where the transfer step takes half precision several times faster."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _with_slot(stored: Tensor, at: int) -> Tensor:
    return torch.cat([stored[:at], torch.zeros_like(stored[:1]), stored[at:]])
