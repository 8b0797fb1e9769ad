"""`prompt_attention`: labels read from Stable Diffusion's cross-attention to learned prompts.

Hedlin et al., Unsupervised Semantic Correspondence Using Stable Diffusion (NeurIPS 2023; LDM_correspondences). On an
annotated frame a prompt's embedding is learned for every joint or object, so that attention to it lies where the joint
or object is; in every other frame, attention to it says where it is there. What it costs is a forward pass per prompt
and frame, and a hundred with gradients per prompt before.

What differs from the published code: frames keep their shape instead of being stretched to a square; a frame is looked
at whole, once, unless `crops` is set, always with the same noise; there is one embedding per joint unless `restarts` is
set; and masks have prompts too, with the mask for a target.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from propagate.errors import InputError, UsageError
from propagate.features.device import resolve_device
from propagate.features.learned_prompts.crops import whole
from propagate.features.learned_prompts.cross_attention import TOKENS, AttentionNetwork
from propagate.features.learned_prompts.label_reader import OnStep
from propagate.features.learned_prompts.learning import Learned, View, attention_loss, learn_embedding, random_views
from propagate.features.learned_prompts.prompt_file import LearnedPrompts, load_prompts
from propagate.features.learned_prompts.reading import looks_at, one_map, pooled, read_attention
from propagate.features.learned_prompts.targets import PointTarget, Target, label_names, targets_of
from propagate.features.networks.digests import fingerprint
from propagate.features.option_types import Count, Multiple, Seed
from propagate.features.stable_diffusion.latent_diffusion import working_multiple
from propagate.features.stable_diffusion.layers import MODEL, Layer
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.types import Keypoints, Label
from propagate.weights.locating import Wanted, located

# attention layers 5 to 8 of Stable Diffusion 1, counted as the published code does: strides 32 and 16
PUBLISHED_LAYERS = ((1, 0), (1, 1), (1, 2), (2, 0))
# of the looks at frames, out of the way of other uses of the seed; generators take 32 bits
READING_SEED = 1 << 31

_KEPT_SETTINGS = ("steps", "patience", "learning_rate", "learning_timestep", "sigma", "portion", "seed")


class PromptAttention:
    """Attention to learned prompts, on the grid of the latents (stride 8); the defaults are the published ones.

    See `propagate.features.learned_prompts.label_reader`: it has no channels before it knows a label.

    Args:
        weights, revision, config: as in `dift_sd`, without a text encoder; None: Stable Diffusion 1.5, from wherever it
            can be had (published: 1.4).
        embedding: a file of learned prompts, as a run leaves it beside its results; None: they are learned.
        layers: (up block, layer) each: whose cross-attention is looked at.
        steps: of learning, per prompt.
        patience: learning stops before where the mean loss of this many steps has not become less for this many steps;
            None: never.
        learning_rate: of Adam.
        learning_timestep: how far latents are noised for learning.
        sigma: of the Gaussian that attention should be at a joint, as a part of the short side.
        restarts: embeddings that are learned per joint or object, each from other random numbers; their attention is
            averaged.
        portion: of a picture's sides that a random crop has, in learning and reading.
        crops: looks at each frame: 1: one, at the whole of it; 4 and more: random crops, of which the first 4 are in
            the corners and the others around the peak of the attention so far (published: 20).
        timestep: how far latents are noised for reading.
        prompts_per_pass: prompts that go through the U-Net together in reading; None: all on a GPU, one on a CPU.
            Learning takes one at a time.
        checkpointing: in learning, compute activations once more instead of keeping them: more time, less memory.
        seed: of embeddings, crops and noise.
        multiple: as in `dift_sd`.
        dtype: "float32" or, where the device computes in it, "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UsageError: no such layer, timestep, multiple or number of crops.
        WeightsError: the weights are missing, damaged or of another architecture.
        InputError: the file of the embedding is missing, damaged, or of another model.
    """

    @staticmethod
    def wanted_weights(
        *, weights: str | Path | None = None, revision: str | None = None, **_: Any
    ) -> tuple[Wanted, ...]:
        """The weights that these options need, in the order in which they are opened."""
        return (Wanted(MODEL, weights, revision),)

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        revision: str | None = None,
        config: Path | None = None,
        embedding: Path | None = None,
        layers: Annotated[Sequence[Layer], Field(min_length=1)] = PUBLISHED_LAYERS,
        steps: Count = 129,
        patience: Annotated[int, Field(ge=2, le=100_000)] | None = 25,
        learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.0023755632,
        learning_timestep: Annotated[int, Field(ge=0, le=9999)] = 140,
        sigma: Annotated[float, Field(ge=1e-4, le=10)] = 0.0546,
        restarts: Count = 1,
        portion: Annotated[float, Field(gt=0, le=1)] = 0.93165,
        crops: Count = 1,
        timestep: Annotated[int, Field(ge=0, le=9999)] = 40,
        prompts_per_pass: Count | None = None,
        checkpointing: bool = True,
        seed: Seed = 0,
        multiple: Multiple | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
    ) -> None:
        if 1 < crops < 4:
            raise UsageError(f"features.crops = {crops}: so few crops do not cover a frame.", "Give 1, or 4 or more.")
        self.device = resolve_device(device)
        files = open_pipeline(located(*self.wanted_weights(weights=weights, revision=revision)), config=config)
        for option, value in (("timestep", timestep), ("learning_timestep", learning_timestep)):
            if value >= len(files.alphas_cumprod):
                raise UsageError(
                    f"features.{option} = {value}: the model's noise schedule has {len(files.alphas_cumprod)} steps.",
                    f"Choose 0 to {len(files.alphas_cumprod) - 1}.",
                )
        self.network = AttentionNetwork(
            files, layers, dtype=getattr(torch, dtype), device=self.device, checkpointing=checkpointing
        )
        self.stride, self.channels = self.network.factor, 0
        self.multiple = working_multiple(multiple, self.network.factor)
        self.steps, self.patience, self.learning_rate = steps, patience, learning_rate
        self.learning_timestep, self.timestep = learning_timestep, timestep
        self.sigma, self.restarts, self.portion, self.crops = sigma, restarts, portion, crops
        self.prompts_per_pass, self.seed = prompts_per_pass, seed
        self.names: tuple[str, ...] = ()
        self._model = fingerprint(files.unet.files)
        self._layers = [list(layer) for layer in sorted(layers)]
        self.prompts = (
            None
            if embedding is None
            else load_prompts(embedding, model=self._model, width=self.network.width, layers=self._layers)
        )

    def learning_steps(self, label: Label) -> int:
        """See `LabelReader`."""
        things = int(label.present.sum()) if isinstance(label, Keypoints) else len(label.objects)
        return 0 if self.prompts is not None else things * self.restarts * self.steps

    def for_label(
        self,
        picture: Float[Tensor, "3 h w"],
        label: Label,
        frame_size: tuple[int, int],
        on_step: OnStep | None = None,
    ) -> PromptAttention:
        """See `LabelReader`. Joints that are absent in the frame have no prompt, unless the file has one.

        Raises:
            InputError: there is nothing to learn, a joint lies outside the frame, or a joint or object has no prompt in
                the file.
        """
        size = picture.shape[-2], picture.shape[-1]
        targets = targets_of(label, frame_size, size, self.sigma)
        taught = copy.copy(self)
        taught.names = label_names(label)
        taught.channels = len(taught.names)
        if taught.prompts is None:
            taught.prompts = self._learn(picture[None].to(self.device), targets, on_step)
        known = taught.prompts.embeddings
        missing = [name for name in targets if name not in known]
        if missing or not any(name in known for name in taught.names):
            raise InputError(
                f"features.embedding: the file has prompts for {', '.join(known)}, none for "
                f"{', '.join(missing or taught.names)}.",
                "Give joints and objects the names they were learned with, or leave features.embedding out.",
            )
        return taught

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], indices: Sequence[int] | None = None
    ) -> Float[Tensor, "b c y x"]:
        """See `LabelReader`; both sides have to be multiples of the VAE's factor."""
        if self.prompts is None or not self.names:
            raise UsageError(
                "PromptAttention has learned no prompts.",
                "Call `for_label(picture, label, frame_size)`, as `track` does, and use what it returns.",
            )
        if images.shape[-2] % self.multiple or images.shape[-1] % self.multiple:
            raise ValueError(f"sides must be multiples of {self.multiple}, not {tuple(images.shape[-2:])}")
        return torch.stack([self._attention(image[None].to(self.device)) for image in images])

    def save(self, path: Path) -> None:
        """See `LabelReader`; the file is what `embedding` takes."""
        assert self.prompts is not None
        self.prompts.save(path)

    def rehearse(self, size: tuple[int, int]) -> Tensor:
        """See `LabelReader`."""
        view = View(whole(size), torch.empty(1, *self._latents(size)))
        target = PointTarget((0.0, 0.0), self.sigma * min(size))
        with torch.enable_grad():
            embedding = torch.empty((1, TOKENS, self.network.width), device=self.device).requires_grad_()
            picture = torch.empty((1, 3, *size), device=self.device)
            loss = attention_loss(self.network, picture, target, embedding, view, self.learning_timestep)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _attention(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "c y x"]:
        """Of one picture, to every name's prompts; 0 for a name without."""
        assert self.prompts is not None
        size = picture.shape[-2], picture.shape[-1]
        known = [name for name in self.names if name in self.prompts.embeddings]
        embeddings = torch.cat([self.prompts.embeddings[name] for name in known]).to(self.device)
        looks = looks_at(
            size, self._latents(size), count=self.crops, portion=self.portion, seed=self.seed + READING_SEED
        )
        at_once = self.prompts_per_pass or (1 if self.device.type == "cpu" else len(embeddings))
        maps = read_attention(
            self.network, picture, embeddings, looks, timestep=self.timestep, prompts_per_pass=at_once
        )
        counts = [len(self.prompts.embeddings[name]) for name in known]
        own = [one_map(part.mean(0)) for part in torch.split(maps, counts)]
        cells = dict(zip(known, pooled(torch.stack(own), self.stride), strict=True))
        nothing = torch.zeros_like(cells[known[0]])
        return torch.stack([cells.get(name, nothing) for name in self.names])

    def _learn(
        self, picture: Float[Tensor, "1 3 h w"], targets: Mapping[str, Target], on_step: OnStep | None
    ) -> LearnedPrompts:
        if not targets:
            raise InputError("The first frame's label has no joint or object that a prompt could be learned for.")
        embeddings, losses = {}, {}
        for name, target in targets.items():
            runs = [self._learn_one(picture, target, name, restart, on_step) for restart in range(self.restarts)]
            embeddings[name] = torch.cat([run.embedding for run in runs])
            losses[name] = tuple(run.losses for run in runs)
        settings = {option: getattr(self, option) for option in _KEPT_SETTINGS}
        return LearnedPrompts(embeddings, self._model, {**settings, "layers": self._layers}, losses)

    def _learn_one(
        self, picture: Float[Tensor, "1 3 h w"], target: Target, name: str, restart: int, on_step: OnStep | None
    ) -> Learned:
        # the name, not its place: a joint's prompt does not depend on which others there are
        digest = hashlib.sha256(f"{self.seed} {restart} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        start = torch.randn((1, TOKENS, self.network.width), generator=generator)
        size, taken = (picture.shape[-2], picture.shape[-1]), 0

        def step(loss: float) -> None:
            nonlocal taken
            taken += 1
            if on_step is not None:
                on_step(name, loss, 1)

        learned = learn_embedding(
            self.network,
            picture,
            target,
            start,
            random_views(
                size, self._latents(size), target, portion=self.portion, steps=self.steps, generator=generator
            ),
            timestep=self.learning_timestep,
            learning_rate=self.learning_rate,
            patience=self.patience,
            on_step=step,
        )
        if on_step is not None and taken < self.steps:
            on_step(name, learned.losses[-1], self.steps - taken)
        return learned

    def _latents(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return self.network.channels, size[0] // self.network.factor, size[1] // self.network.factor
