"""LabelPropagator: features of a frame in, its soft labels out. Knows no images and no files."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from propagate.affinity import Ties, Window, normalize, propagate_labels
from propagate.memory import MemoryBank


class LabelPropagator:
    """Carries soft labels from annotated frames to the frames that follow, one at a time.

    Args:
        n_last: most recent frames kept in memory beside the anchors.
        top_k, temperature, ties: see `propagate.affinity.propagate_labels`.
        window: "square", "circle" or "none".
        radius: of the window, in grid cells.
        exempt_anchors: the window does not bind the anchors (CRW).
        memory_dtype: "float32", "float16" or "bfloat16": of the features in memory.
        anchors: annotated frames to make room for; more may come.
        tile_scores: see `propagate.affinity.propagate_labels`.

    Example:
        >>> propagator = LabelPropagator(top_k=5, radius=12)
        >>> propagator.anchor(features_of_frame_0, labels_of_frame_0)
        >>> labels_of_frame_1 = propagator.step(features_of_frame_1)
    """

    def __init__(
        self,
        *,
        n_last: int = 7,
        top_k: int = 5,
        temperature: float = 0.1,
        window: Literal["square", "circle", "none"] = "square",
        radius: float = 12,
        exempt_anchors: bool = False,
        ties: Ties = "cut",
        memory_dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        anchors: int = 1,
        tile_scores: int | None = None,
    ) -> None:
        self.top_k, self.temperature, self.ties = top_k, temperature, ties
        self.tile_scores = tile_scores
        self.window, self.radius, self.exempt_anchors = window, radius, exempt_anchors
        self._exempt: list[int] = []
        self.memory = MemoryBank(n_last, anchors=anchors, dtype=getattr(torch, memory_dtype))

    def anchor(
        self,
        features: Float[Tensor, "c h w"],
        labels: Float[Tensor, "l h w"],
        *,
        window: Literal["none"] | None = None,
    ) -> Float[Tensor, "l h w"]:
        """Take in an annotated frame; it stays in memory for ever. Returns its labels as they were given.

        Args:
            features: (C, h, w), not necessarily normalized.
            labels: (L, h, w).
            window: "none": this anchor is searched everywhere, because it is another picture, in which the place of a
                thing says nothing of its place in the video; None: as the propagator's window and `exempt_anchors` say.
        """
        if window not in (None, "none"):
            raise ValueError(f'window of an anchor must be "none" or None, not {window!r}')
        if window == "none":
            self._exempt.append(self.memory.anchors)
        self.memory.add_anchor(normalize(features), labels)
        return labels

    def step(self, features: Float[Tensor, "c h w"]) -> Float[Tensor, "l h w"]:
        """The soft labels of the next frame, which then becomes the newest of the memory.

        Args:
            features: (C, h, w), not necessarily normalized.

        Returns:
            (L, h, w) float32: neither hardened nor renormalized.

        Raises:
            ValueError: no anchor has been given yet.
        """
        if not self.memory.anchors:
            raise ValueError("step() before anchor(): give an annotated frame first")
        query = normalize(features)
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
        )
        self.memory.add_prediction(query, soft)
        return soft

    def _window(self) -> Window | None:
        if self.window == "none":
            return None
        exempt = tuple(range(self.memory.anchors)) if self.exempt_anchors else tuple(self._exempt)
        return Window(self.window, self.radius, exempt)
