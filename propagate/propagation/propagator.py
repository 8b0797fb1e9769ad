"""LabelPropagator: features of a frame in, its soft labels out. Knows no images and no files."""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.propagation.affinity import normalize, propagate_labels
from propagate.propagation.cpu.keys import RoundedKeys
from propagate.propagation.finer import by_cell, finer_factor, from_cells, refine_labels
from propagate.propagation.memory import MemoryBank
from propagate.propagation.torch.transfer import best_keys
from propagate.propagation.window import Ties, Window


class LabelPropagator:
    """Carries soft labels from annotated frames to the frames that follow, one at a time.

    Args:
        n_last: most recent frames kept in memory beside the anchors.
        n_older, older_every: frames before these that are kept, too, see `propagate.propagation.memory.MemoryBank`.
        top_k, temperature, ties: see `propagate.propagation.affinity.propagate_labels`.
        window: "square", "circle" or "none".
        radius: of the window, in grid cells; with `finer`, too, in those of the features.
        exempt_anchors: the window does not bind the anchors (CRW).
        memory_dtype: "float32", "float16", "bfloat16", of the features in memory; or "auto": float16 on a CUDA device
            unless `ties` is "keep", which compares scores for equality, else float32.
        finer: carry labels on the grid of finer features, which come with the others: these are searched, and the
            finer cells of what was found are compared (`propagate.propagation.finer`).
        finer_from: so many keys are found for that; `top_k` is of their finer cells then.
        anchors: annotated frames to make room for; more may come.
        tile_scores: see `affinity.propagate_labels`; of finer features, `finer.refine_labels`.

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
        self.top_k, self.temperature, self.ties = top_k, temperature, ties
        self.tile_scores = tile_scores
        self.window, self.radius, self.exempt_anchors = window, radius, exempt_anchors
        self._exempt: list[int] = []
        self.finer_from = finer_from

        def bank() -> MemoryBank:
            return MemoryBank(
                n_last,
                anchors=anchors,
                n_older=n_older,
                older_every=older_every,
                dtype=_stored(memory_dtype, ties),
            )

        self.memory = bank()
        self._rounded = RoundedKeys()
        # with it, the labels are here, by cell as the features are, and those of the other bank have no channels
        self.finer_memory = bank() if finer else None

    def anchor(
        self,
        features: Float[Tensor, "c h w"],
        labels: Float[Tensor, "l y x"],
        finer: Float[Tensor, "d y x"] | None = None,
        *,
        window: Literal["none"] | None = None,
    ) -> Float[Tensor, "l y x"]:
        """Take in an annotated frame; it stays in memory for ever. Returns its labels as they were given.

        Args:
            features: (C, h, w), not necessarily normalized.
            labels: (L, h, w), or on the grid of the finer features.
            finer: (D, f h, f w) finer features of the frame, for any whole f; they have to be there if, and only if,
                the propagator is one for them.
            window: "none": this anchor is searched everywhere, because it is another picture, in which the place of a
                thing says nothing of its place in the video; None: as the propagator's window and `exempt_anchors` say.
        """
        if window not in (None, "none"):
            raise ValueError(f'window of an anchor must be "none" or None, not {window!r}')
        self._check(finer)
        query = normalize(features)
        if self.finer_memory is None or finer is None:
            self.memory.add_anchor(query, labels)
        else:
            factor = finer_factor(_grid(features), _grid(finer))
            self.memory.add_anchor(query, _no_labels(query))
            self.finer_memory.add_anchor(by_cell(normalize(finer), factor), by_cell(labels, factor))
        if window == "none":
            self._exempt.append(self.memory.anchors - 1)
        return labels

    def step(
        self, features: Float[Tensor, "c h w"], finer: Float[Tensor, "d y x"] | None = None
    ) -> Float[Tensor, "l y x"]:
        """The soft labels of the next frame, which then becomes the newest of the memory.

        Args:
            features: (C, h, w), not necessarily normalized.
            finer: see `anchor`.

        Returns:
            (L, h, w) float32, or on the grid of the finer features: neither hardened nor renormalized.

        Raises:
            ValueError: no anchor has been given yet.
        """
        return self._carried(features, finer, remember=True)

    def predict(
        self, features: Float[Tensor, "c h w"], finer: Float[Tensor, "d y x"] | None = None
    ) -> Float[Tensor, "l y x"]:
        """The soft labels that `step` would give; the memory stays as it is.

        For an annotated frame that leaves some objects to the prediction. Arguments, result and errors as `step`.
        """
        return self._carried(features, finer, remember=False)

    def _carried(
        self, features: Float[Tensor, "c h w"], finer: Float[Tensor, "d y x"] | None, *, remember: bool
    ) -> Float[Tensor, "l y x"]:
        if not self.memory.anchors:
            raise ValueError("step() before anchor(): give an annotated frame first")
        self._check(finer)
        query = normalize(features)
        if self.finer_memory is not None and finer is not None:
            return self._finer_carried(query, finer, self.finer_memory, remember=remember)
        keys, labels = self.memory.context()
        soft = propagate_labels(
            query,
            keys,
            labels,
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

    def _finer_carried(
        self, query: Float[Tensor, "c h w"], finer: Float[Tensor, "d y x"], memory: MemoryBank, *, remember: bool
    ) -> Float[Tensor, "l y x"]:
        factor = finer_factor(_grid(query), _grid(finer))
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
            self.memory.add_prediction(query, _no_labels(query))
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


def _grid(features: Float[Tensor, "c h w"]) -> tuple[int, int]:
    _, height, width = features.shape
    return height, width


def _no_labels(query: Float[Tensor, "c h w"]) -> Float[Tensor, "0 h w"]:
    return query[:0]


def _stored(memory_dtype: str, ties: Ties) -> torch.dtype | None:
    """What the memory keeps features in; None: what suits the device, which the first features tell."""
    if memory_dtype != "auto":
        return cast("torch.dtype", getattr(torch, memory_dtype))
    return torch.float32 if ties == "keep" else None
