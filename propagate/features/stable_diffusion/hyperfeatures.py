"""`hyperfeatures`: Diffusion Hyperfeatures (Luo et al., NeurIPS 2023), all layers of a decoder at several timesteps.

The second convolution of every resnet of Stable Diffusion's up blocks, before the shortcut is added, at every timestep
of the aggregation network, is the input of that network (`propagate.features.diffusion.aggregation`).

Differences from the published code: the latents are the mode of the VAE's posterior instead of a sample, pictures keep
their aspect ratio, and noisy latents are noised in one step, unless `noising` is "inversion".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from propagate.errors import WeightsError
from propagate.features.device import resolve_device
from propagate.features.diffusion.aggregation import Aggregator, load_aggregator
from propagate.features.diffusion.core import Noise, tapped
from propagate.features.extractor import Features, Images, Indices
from propagate.features.options import Dtype, Multiple, Seed, Weights
from propagate.features.stable_diffusion.latent_diffusion import LatentExtractor
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.weights.locating import Wanted, located
from propagate.weights.registry import MODELS

AGGREGATOR = "hyperfeatures-one-step"
# part of a model's id -> width of its prompts; the channels of the layers are the same in all
_PROMPT_WIDTHS = {"stable-diffusion-v1": 768, "stable-diffusion-2": 1024}


class Hyperfeatures(LatentExtractor):
    """Diffusion Hyperfeatures on the grid of the latents (stride 8).

    Args:
        aggregator: a file in the published layout, a model of `propagate models list` ("hyperfeatures-one-step",
            "hyperfeatures", "hyperfeatures-sd21") or a hub id; None: the one-step network, which takes one pass per
            frame, over the clean latents.
        weights, revision, config: the aggregator's Stable Diffusion, as in `dift_sd`; None: 1.5.
        noising: how latents of later steps are made. "one_step": noised directly with seeded noise, one pass per step
            of the aggregator; "inversion": by DDIM inversion as published, one pass per step of the whole inversion
            (50). Both take the U-Net's prediction for the noise, also of models that predict something else.
        seed: seed of the noise, the same for every frame and step.
        dtype: dtype of Stable Diffusion; the aggregation network computes in float32.

    See `propagate.features.options` for the other options. An aggregator of another model is a WeightsError.
    """

    @classmethod
    def wanted_weights(
        cls, *, aggregator: Weights = None, weights: Weights = None, revision: str | None = None, **_: Any
    ) -> tuple[Wanted, ...]:
        """Return the model's weights, then the aggregation network's."""
        is_named = aggregator is None or str(aggregator) in MODELS
        own = Wanted(str(aggregator or AGGREGATOR)) if is_named else Wanted(AGGREGATOR, aggregator)
        return Wanted(cls.model_name, weights, revision), own

    def __init__(
        self,
        *,
        aggregator: Weights = None,
        weights: Weights = None,
        revision: str | None = None,
        config: Path | None = None,
        noising: Literal["one_step", "inversion"] = "one_step",
        prompt: str = "",
        seed: Seed = 0,
        multiple: Multiple | None = None,
        dtype: Dtype = "float32",
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        model, own = self.wanted_weights(aggregator=aggregator, weights=weights, revision=revision)
        files = open_pipeline(located(model), config=config)
        self.aggregator = load_aggregator(located(own))
        self.noising = noising
        count = self.aggregator.count
        self._steps = [count - 1 - label for label in self.aggregator.labels]
        self._last_step, self._spacing = max(self._steps), len(files.alphas_cumprod) // count
        self._build(
            files,
            up_ft_index=len(files.unet.config.get("up_block_types", (0,))) - 1,
            whole=noising == "inversion" and self._last_step > 0,
            prompt=prompt,
            multiple=multiple,
            dtype=dtype,
        )
        self._taps = [resnet.conv2 for block in self.model.decoder for resnet in block.resnets]
        channels = tuple(int(tap.out_channels) for tap in self._taps)
        _check_variant(self.aggregator, channels, files.unet.config.get("cross_attention_dim"))
        self.aggregator.network.to(self.device)
        self.stride, self.channels = self.model.factor, self.aggregator.projection
        self._noise = Noise(seed=seed)
        self._alphas_cumprod = files.alphas_cumprod.tolist()

    @torch.no_grad()
    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `FeatureExtractor`."""
        clean = self.model.latents(images)
        total = clean.new_zeros(len(clean), self.channels, *clean.shape[-2:])
        latents = clean
        for step in range(self._last_step + 1):
            places = [place for place, own in enumerate(self._steps) if own == step]
            if self.noising == "inversion":
                latents = self._inverted(latents, step, places, total)
            elif places:
                alpha_bar, noise = self._alpha_bar(step), self._noise.draw(tuple(clean.shape[1:])).to(clean)
                self._add(alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise, step, places, total)
        return total

    def _inverted(self, latents: Tensor, step: int, places: list[int], total: Tensor) -> Tensor:
        """Add this step's share to `total` and return the latents of the next step of the DDIM inversion."""
        if step == self._last_step:
            self._add(latents, step, places, total)
            return latents
        with tapped(self._taps if places else (), self._adder(places, total)):
            predicted = self.model.output(latents, self._timestep(step))
        alpha_bar, next_alpha_bar = self._alpha_bar(step), self._alpha_bar(step + 1)
        clean = (latents - (1 - alpha_bar) ** 0.5 * predicted) / alpha_bar**0.5
        moved: Tensor = next_alpha_bar**0.5 * clean + (1 - next_alpha_bar) ** 0.5 * predicted
        return moved

    def _add(self, latents: Tensor, step: int, places: list[int], total: Tensor) -> None:
        with tapped(self._taps, self._adder(places, total)):
            self.model.activation(latents, self._timestep(step))

    def _adder(self, places: list[int], total: Tensor) -> Callable[[int, Tensor], None]:
        def add(layer: int, output: Tensor) -> None:
            features = F.interpolate(output.float(), total.shape[-2:], mode="bilinear", align_corners=False)
            for place in places:
                total.add_(self.aggregator.network.share(place, layer, features))

        return add

    def _timestep(self, step: int) -> int:
        """Return the timestep passed to the U-Net: -1 for the clean latents, as published."""
        return -1 if step == 0 else (step - 1) * self._spacing

    def _alpha_bar(self, step: int) -> float:
        return 1.0 if step == 0 else self._alphas_cumprod[self._timestep(step)]


def _check_variant(aggregator: Aggregator, channels: tuple[int, ...], width: int | None) -> None:
    remedy = "Name the aggregator of this model, or the model of this aggregator (features.weights)."
    if aggregator.channels != channels:
        own, others = (", ".join(map(str, listed)) for listed in (aggregator.channels, channels))
        raise WeightsError(
            f"The aggregation network is for layers of {own} channels, the model's decoder has {others}.", remedy
        )
    for part, expected in _PROMPT_WIDTHS.items():
        if part in aggregator.model_id and width != expected:
            raise WeightsError(
                f"The aggregation network was trained on {aggregator.model_id}, whose prompts are {expected} wide; "
                f"this model's are {width}.",
                remedy,
            )
