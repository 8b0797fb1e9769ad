"""LabelPropagator: features of a frame in, its soft labels out. Knows no images and no files."""

from __future__ import annotations

from functools import partial
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.cpu.keys import RoundedKeys
from propagate.propagation.finer import by_cell, finer_factor, from_cells, refine_labels
from propagate.propagation.memory import MemoryBank
from propagate.propagation.torch.transfer import best_keys
from propagate.propagation.window import Ties, Window, grid_of

_Coarse = Float[Tensor, "c h w"]
_Finer = Float[Tensor, "d y x"]
_Soft = Float[Tensor, "l y x"]


class LabelPropagator:
    """Carries soft labels from annotated frames to the frames that follow, one at a time.

    Args:
        n_last: most recent frames kept in memory beside the anchors.
        n_older, older_every: earlier frames kept as well, see `propagate.propagation.memory.MemoryBank`.
        top_k, temperature, ties: see `propagate.propagation.affinity.propagate_labels`.
        window: "square", "circle" or "none".
        radius: window radius in cells of the features' grid, also with `finer`.
        exempt_anchors: search anchors without a window (CRW).
        memory_dtype: "float32", "float16" or "bfloat16" for the features in memory; "auto": float16 on a CUDA device
            unless `ties` is "keep", which compares scores for equality, else float32.
        finer: carry labels on the grid of finer features: the coarse features are searched, and the finer cells of the
            keys found are compared (`propagate.propagation.finer`).
        finer_from: keys to search for that; `top_k` then counts their finer cells.
        anchors: annotated frames to reserve room for; more can be added.
        tile_scores: see `affinity.propagate_labels` and `finer.refine_labels`.

    Example:
        >>> propagator = LabelPropagator(top_k=5, radius=12)
        >>> propagator.anchor(features_of_frame_0, labels_of_frame_0)
        >>> labels_of_frame_1 = propagator.step(features_of_frame_1)
    """

    def __init__(
        self,
        *,
        n_last: int = 7,
        n_older: int = 0,
        older_every: int = 5,
        top_k: int = 5,
        temperature: float = 0.1,
        window: Literal["square", "circle", "none"] = "square",
        radius: float = 12,
        exempt_anchors: bool = False,
        ties: Ties = "cut",
        memory_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        finer: bool = False,
        finer_from: int = 10,
        anchors: int = 1,
        tile_scores: int | None = None,
    ) -> None:
        self.top_k, self.temperature, self.ties, self.tile_scores = top_k, temperature, ties, tile_scores
        self.window, self.radius, self.exempt_anchors = window, radius, exempt_anchors
        self.finer_from = finer_from
        self._exempt: list[int] = []
        self._rounded = RoundedKeys()
        bank = partial(
            MemoryBank,
            n_last,
            anchors=anchors,
            n_older=n_older,
            older_every=older_every,
            dtype=_stored_dtype(memory_dtype, ties),
        )
        self.memory = bank()
        # if set, it holds the labels, by cell like its features, and the labels in `memory` have no channels
        self.finer_memory = bank() if finer else None

    def anchor(
        self, features: _Coarse, labels: _Soft, finer: _Finer | None = None, *, window: Literal["none"] | None = None
    ) -> _Soft:
        """Add an annotated frame, which stays in memory. Return its labels unchanged.

        Args:
            features: (C, h, w), not necessarily normalized.
            labels: (L, h, w), or on the grid of the finer features.
            finer: (D, f h, f w) finer features of the frame, for any whole f; required with `finer=True`, else None.
            window: "none": search this anchor everywhere, for another picture whose positions mean nothing in the
                video; None: follow the propagator's window and `exempt_anchors`.
        """
        if window not in (None, "none"):
            raise ValueError(f'window of an anchor must be "none" or None, not {window!r}')
        self._check(finer)
        query = normalize(features)
        if self.finer_memory is None or finer is None:
            self.memory.add_anchor(query, labels)
        else:
            factor = finer_factor(grid_of(features), grid_of(finer))
            self.memory.add_anchor(query, query[:0])
            self.finer_memory.add_anchor(by_cell(normalize(finer), factor), by_cell(labels, factor))
        if window == "none":
            self._exempt.append(self.memory.anchors - 1)
        return labels

    def step(self, features: _Coarse, finer: _Finer | None = None) -> _Soft:
        """Return the soft labels of the next frame, neither hardened nor renormalized, and add it to the memory.

        Arguments as `anchor`. Raises ValueError if there is no anchor yet.
        """
        return self._carry(features, finer, remember=True)

    def predict(self, features: _Coarse, finer: _Finer | None = None) -> _Soft:
        """Return the soft labels that `step` would give, without changing the memory.

        For an annotated frame that leaves some objects to the prediction. Arguments, result and errors as `step`.
        """
        return self._carry(features, finer, remember=False)

    def _carry(self, features: _Coarse, finer: _Finer | None, *, remember: bool) -> _Soft:
        if not self.memory.anchors:
            raise ValueError("step() before anchor(): give an annotated frame first")
        self._check(finer)
        query = normalize(features)
        if self.finer_memory is not None and finer is not None:
            return self._carry_finer(query, finer, self.finer_memory, remember=remember)
        soft = propagate_labels(
            query,
            *self.memory.context(),
            window=self._window(),
            top_k=self.top_k,
            temperature=self.temperature,
            ties=self.ties,
            tile_scores=self.tile_scores,
            rounded=self._rounded,
            stamps=self.memory.stamps,
        )
        if remember:
            self.memory.add_prediction(query, soft)
        return soft

    def _carry_finer(self, query: _Coarse, finer: _Finer, memory: MemoryBank, *, remember: bool) -> _Soft:
        factor = finer_factor(grid_of(query), grid_of(finer))
        finer_query = by_cell(normalize(finer), factor)
        keys, _ = self.memory.context()
        found = best_keys(query, keys, window=self._window(), top_k=self.finer_from, tile_scores=self.tile_scores)
        soft = refine_labels(
            finer_query,
            *memory.context(),
            found,
            factor=factor,
            top_k=self.top_k,
            temperature=self.temperature,
            ties=self.ties,
            tile_scores=self.tile_scores,
        )
        if remember:
            self.memory.add_prediction(query, query[:0])
            memory.add_prediction(finer_query, soft)
        return from_cells(soft, factor)

    def _check(self, finer: Tensor | None) -> None:
        if (finer is None) != (self.finer_memory is None):
            raise ValueError("finer features have to come with a propagator made with finer=True, and only with it")

    def _window(self) -> Window | None:
        if self.window == "none":
            return None
        exempt = tuple(range(self.memory.anchors)) if self.exempt_anchors else tuple(self._exempt)
        return Window(self.window, self.radius, exempt)


def _stored_dtype(memory_dtype: str, ties: Ties) -> torch.dtype | None:
    """The dtype of features in memory; None: choose by the device of the first features."""
    if memory_dtype != "auto":
        return cast("torch.dtype", getattr(torch, memory_dtype))
    return torch.float32 if ties == "keep" else None
