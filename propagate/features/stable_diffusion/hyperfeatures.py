"""`hyperfeatures`: Diffusion Hyperfeatures (Luo et al., NeurIPS 2023), all layers of a decoder at several timesteps.

The second convolution of every resnet of Stable Diffusion's up blocks, before the shortcut is added, at every timestep
that the aggregation network was trained on, goes through that network (`propagate.features.diffusion.aggregation`).

What differs from the published code: the latents are the mode of the VAE's posterior instead of a sample of it, so that
a frame is the same each time; pictures keep their aspect instead of being squashed to a square; and where the
aggregation network wants noisy latents, they are noised in one step, unless `noising` is "inversion".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from propagate.errors import WeightsError
from propagate.features.device import resolve_device
from propagate.features.diffusion.aggregation import Aggregator, load_aggregator
from propagate.features.diffusion.core import Noise
from propagate.features.diffusion.taps import tapped
from propagate.features.option_types import Multiple, Seed
from propagate.features.stable_diffusion.latent_diffusion import LatentDiffusion, working_multiple
from propagate.features.stable_diffusion.layers import MODEL
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.features.stable_diffusion.prompt_embedding import prompt_embedding
from propagate.weights.locating import Wanted, located
from propagate.weights.registry import MODELS

AGGREGATOR = "hyperfeatures-one-step"
# width of the prompt's embedding, by what the model's id has in it; channels of the layers are the same in all
_PROMPT_WIDTHS = {"stable-diffusion-v1": 768, "stable-diffusion-2": 1024}


class Hyperfeatures:
    """Diffusion Hyperfeatures on the grid of the latents (stride 8).

    Args:
        aggregator: a file in the published layout, a model of `propagate models list` ("hyperfeatures-one-step",
            "hyperfeatures", "hyperfeatures-sd21") or a hub id; None: the one-step network, which takes one pass per
            frame, over the clean latents.
        weights, revision, config: the Stable Diffusion that the aggregator belongs to, as in `dift_sd`; None: 1.5, from
            wherever it can be had.
        noising: how latents of later steps are made. "one_step": noised directly with seeded noise, a pass per step of
            the aggregator; "inversion": by DDIM inversion as published, a pass per step of the whole inversion (50).
            There as here, what the U-Net predicts is taken for the noise, also of models that predict something else.
        prompt: text condition.
        seed: of the noise, which is the same for every frame and step.
        multiple: as in `dift_sd`.
        dtype: "float32" or, where the device computes in it, "bfloat16" or "float16"; the aggregation network computes
            in float32.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UsageError: no such multiple.
        WeightsError: weights are missing or damaged, or aggregator and model do not belong together.
    """

    @staticmethod
    def wanted_weights(
        *,
        aggregator: str | Path | None = None,
        weights: str | Path | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> tuple[Wanted, ...]:
        """The weights that these options need: the model's, then the aggregation network's."""
        is_named = aggregator is None or str(aggregator) in MODELS
        own = Wanted(str(aggregator or AGGREGATOR)) if is_named else Wanted(AGGREGATOR, aggregator)
        return Wanted(MODEL, weights, revision), own

    def __init__(
        self,
        *,
        aggregator: str | Path | None = None,
        weights: str | Path | None = None,
        revision: str | None = None,
        config: Path | None = None,
        noising: Literal["one_step", "inversion"] = "one_step",
        prompt: str = "",
        seed: Seed = 0,
        multiple: Multiple | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        model, own = self.wanted_weights(aggregator=aggregator, weights=weights, revision=revision)
        files = open_pipeline(located(model), config=config)
        self._aggregator = load_aggregator(located(own))
        self.noising = noising
        count = self._aggregator.count
        self._steps = [count - 1 - label for label in self._aggregator.labels]
        self._last_step, self._spacing = max(self._steps), len(files.alphas_cumprod) // count
        self._model = LatentDiffusion(
            unet=files.unet,
            vae=files.vae,
            condition=prompt_embedding(prompt, files.text_encoder, files.unet.files),
            up_ft_index=len(files.unet.config.get("up_block_types", (0,))) - 1,
            whole=noising == "inversion" and self._last_step > 0,
            dtype=getattr(torch, dtype),
            device=self.device,
        )
        resnets = [resnet for block in self._model.decoder for resnet in block.resnets]
        self._taps = [resnet.conv2 for resnet in resnets]
        channels = tuple(int(tap.out_channels) for tap in self._taps)
        _check_variant(self._aggregator, channels, files.unet.config.get("cross_attention_dim"))
        self._aggregator.network.to(self.device)
        self.stride, self.channels = self._model.factor, self._aggregator.projection
        self.multiple = working_multiple(multiple, self._model.factor)
        self._noise = Noise(seed=seed)
        self._alphas_cumprod = files.alphas_cumprod.tolist()

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `FeatureExtractor`; both sides have to be multiples of the VAE's factor."""
        clean = self._model.latents(images)
        total = clean.new_zeros(len(clean), self.channels, *clean.shape[-2:])
        latents = clean
        for step in range(self._last_step + 1):
            places = [place for place, wanted in enumerate(self._steps) if wanted == step]
            if self.noising == "inversion":
                latents = self._inverted(latents, step, places, total)
            elif places:
                self._add(self._noised(clean, step), step, places, total)
        return total

    def _inverted(self, latents: Tensor, step: int, places: list[int], total: Tensor) -> Float[Tensor, "b c y x"]:
        """The latents of the next step of the DDIM inversion; this step's share is added."""
        if step == self._last_step:
            self._add(latents, step, places, total)
            return latents
        with tapped(self._taps if places else (), self._adder(places, total)):
            predicted = self._model.output(latents, self._timestep(step))
        kept, kept_next = self._kept(step), self._kept(step + 1)
        clean = (latents - (1 - kept) ** 0.5 * predicted) / kept**0.5
        moved: Tensor = kept_next**0.5 * clean + (1 - kept_next) ** 0.5 * predicted
        return moved

    def _noised(self, clean: Tensor, step: int) -> Float[Tensor, "b c y x"]:
        kept = self._kept(step)
        noise = self._noise.draw(tuple(clean.shape[1:])).to(clean)
        noised: Tensor = kept**0.5 * clean + (1 - kept) ** 0.5 * noise
        return noised

    def _add(self, latents: Tensor, step: int, places: list[int], total: Tensor) -> None:
        with tapped(self._taps, self._adder(places, total)):
            self._model.activation(latents, self._timestep(step))

    def _adder(self, places: list[int], total: Tensor) -> Callable[[int, Tensor], None]:
        def add(layer: int, output: Tensor) -> None:
            features = F.interpolate(output.float(), total.shape[-2:], mode="bilinear", align_corners=False)
            for place in places:
                total.add_(self._aggregator.network.share(place, layer, features))

        return add

    def _timestep(self, step: int) -> int:
        """What the U-Net is told: -1 for the clean latents, as published."""
        return -1 if step == 0 else (step - 1) * self._spacing

    def _kept(self, step: int) -> float:
        return 1.0 if step == 0 else self._alphas_cumprod[self._timestep(step)]


def _check_variant(aggregator: Aggregator, channels: tuple[int, ...], width: int | None) -> None:
    if aggregator.channels != channels:
        raise WeightsError(
            f"The aggregation network is for layers of {_listed(aggregator.channels)} channels, the model's decoder "
            f"has {_listed(channels)}.",
            "Name the aggregator of this model, or the model of this aggregator (features.weights).",
        )
    for part, expected in _PROMPT_WIDTHS.items():
        if part in aggregator.model_id and width != expected:
            raise WeightsError(
                f"The aggregation network was trained on {aggregator.model_id}, whose prompts are {expected} wide; "
                f"this model's are {width}.",
                "Name the aggregator of this model, or the model of this aggregator (features.weights).",
            )


def _listed(channels: Iterable[int]) -> str:
    return ", ".join(map(str, channels))
