"""`prompt_attention`: labels read from Stable Diffusion's cross-attention to learned prompts.

Hedlin et al., Unsupervised Semantic Correspondence Using Stable Diffusion (NeurIPS 2023; LDM_correspondences). On an
annotated frame a prompt's embedding is learned for every joint or object, so that its attention lies there; in every
other frame its attention shows the place. The cost is a forward pass per prompt and frame, after a hundred with
gradients per prompt.

Differences from the published code: frames keep their aspect ratio; a frame is read whole, once, unless `crops` is set,
always with the same noise; there is one embedding per joint unless `restarts` is set; and masks have prompts, too.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from propagate.errors import InputError, UsageError
from propagate.features.device import resolve_device
from propagate.features.extractor import Features, Images, Indices, check_sides
from propagate.features.learned_prompts import learning
from propagate.features.learned_prompts.cross_attention import TOKENS, AttentionNetwork
from propagate.features.learned_prompts.label_reader import OnStep
from propagate.features.learned_prompts.prompt_file import LearnedPrompts, load_prompts
from propagate.features.learned_prompts.targets import PointTarget, Target, label_names, targets_of, whole
from propagate.features.networks.local_files import fingerprint
from propagate.features.options import Count, Dtype, Multiple, Seed, Timestep, Weights, working_multiple
from propagate.features.stable_diffusion.latent_diffusion import LatentExtractor
from propagate.features.stable_diffusion.layers import Layer
from propagate.features.stable_diffusion.pipeline_files import open_pipeline
from propagate.types import Keypoints, Label
from propagate.weights.locating import located

# attention layers 5 to 8 of Stable Diffusion 1 in the published code's numbering: strides 32 and 16
PUBLISHED_LAYERS = ((1, 0), (1, 1), (1, 2), (2, 0))
# added to the seed for reading, beyond other uses of the seed; generators take 32 bits
READING_SEED = 1 << 31

_SAVED_SETTINGS = ("steps", "patience", "learning_rate", "learning_timestep", "sigma", "portion", "seed")


class PromptAttention(LatentExtractor):
    """Attention to learned prompts, on the grid of the latents (stride 8); the defaults are the published ones.

    See `propagate.features.learned_prompts.label_reader`: it has no channels before it knows a label.

    Args:
        weights, revision, config: as in `dift_sd`, without a text encoder; None: Stable Diffusion 1.5 (published: 1.4).
        embedding: a file of learned prompts, as in the output folder of a run; None: learn them.
        layers: (up block, layer) each: layers whose cross-attention is read.
        steps: learning steps per prompt.
        patience: stop learning early if the mean loss of this many steps has not fallen for as many; None: never.
        learning_rate: learning rate of Adam.
        learning_timestep: how far latents are noised for learning.
        sigma: sigma of a joint's Gaussian target, as a part of the short side.
        restarts: embeddings per joint or object, each from other random numbers; their attention is averaged.
        portion: side of a random crop, as a part of the picture's, for learning and reading.
        crops: views of each frame: 1: the whole frame; 4 and more: random crops, the first 4 in the corners and the
            others around the peak of the attention so far (published: 20).
        timestep: how far latents are noised for reading.
        prompts_per_pass: prompts that share a pass of the U-Net in reading; None: all on a GPU, one on a CPU. Learning
            takes one at a time.
        checkpointing: in learning, recompute activations instead of storing them: more time, less memory.
        seed: seed of embeddings, crops and noise.

    See `propagate.features.options` for the other options. A bad file of the embedding is an InputError.
    """

    def __init__(
        self,
        *,
        weights: Weights = None,
        revision: str | None = None,
        config: Path | None = None,
        embedding: Path | None = None,
        layers: Annotated[Sequence[Layer], Field(min_length=1)] = PUBLISHED_LAYERS,
        steps: Count = 129,
        patience: Annotated[int, Field(ge=2, le=100_000)] | None = 25,
        learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.0023755632,
        learning_timestep: Timestep = 140,
        sigma: Annotated[float, Field(ge=1e-4, le=10)] = 0.0546,
        restarts: Count = 1,
        portion: Annotated[float, Field(gt=0, le=1)] = 0.93165,
        crops: Count = 1,
        timestep: Timestep = 40,
        prompts_per_pass: Count | None = None,
        checkpointing: bool = True,
        seed: Seed = 0,
        multiple: Multiple | None = None,
        dtype: Dtype = "float32",
        device: str = "auto",
    ) -> None:
        if 1 < crops < 4:
            raise UsageError(f"features.crops = {crops}: so few crops do not cover a frame.", "Give 1, or 4 or more.")
        self.device = resolve_device(device)
        files = open_pipeline(located(*self.wanted_weights(weights=weights, revision=revision)), config=config)
        for option, value in (("timestep", timestep), ("learning_timestep", learning_timestep)):
            files.alpha_bar(value, option)
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
        self._fingerprint = fingerprint(files.unet.files)
        self._layers = [list(layer) for layer in sorted(layers)]
        self.prompts = (
            None
            if embedding is None
            else load_prompts(embedding, model=self._fingerprint, width=self.network.width, layers=self._layers)
        )

    def learning_steps(self, label: Label) -> int:
        """See `LabelReader`."""
        prompts = int(label.present.sum()) if isinstance(label, Keypoints) else len(label.objects)
        return 0 if self.prompts is not None else prompts * self.restarts * self.steps

    def for_label(
        self,
        picture: Float[Tensor, "3 h w"],
        label: Label,
        frame_size: tuple[int, int],
        on_step: OnStep | None = None,
    ) -> PromptAttention:
        """See `LabelReader`. Joints that are absent in the frame have no prompt, unless the file has one."""
        size = picture.shape[-2], picture.shape[-1]
        targets = targets_of(label, frame_size, size, self.sigma)
        learned = copy.copy(self)
        learned.names = label_names(label)
        learned.channels = len(learned.names)
        if learned.prompts is None:
            learned.prompts = self._learn(picture[None].to(self.device), targets, on_step)
        known = learned.prompts.embeddings
        missing = [name for name in targets if name not in known]
        if missing or not any(name in known for name in learned.names):
            raise InputError(
                f"features.embedding: the file has prompts for {', '.join(known)}, none for "
                f"{', '.join(missing or learned.names)}.",
                "Give joints and objects the names they were learned with, or leave features.embedding out.",
            )
        return learned

    @torch.no_grad()
    def __call__(self, images: Images, indices: Indices = None) -> Features:
        """See `LabelReader`."""
        if self.prompts is None or not self.names:
            raise UsageError(
                "PromptAttention has learned no prompts.",
                "Call `for_label(picture, label, frame_size)`, as `track` does, and use what it returns.",
            )
        check_sides(images, self.multiple)
        return torch.stack([self._attention(image[None].to(self.device)) for image in images])

    def save(self, path: Path) -> None:
        """See `LabelReader`; the file is a value for `embedding`."""
        assert self.prompts is not None
        self.prompts.save(path)

    def dry_run_step(self, size: tuple[int, int]) -> Tensor:
        """See `LabelReader`."""
        view = learning.View(whole(size), torch.empty(1, *self._latents(size)))
        target = PointTarget((0.0, 0.0), self.sigma * min(size))
        with torch.enable_grad():
            embedding = torch.empty((1, TOKENS, self.network.width), device=self.device).requires_grad_()
            picture = torch.empty((1, 3, *size), device=self.device)
            loss = learning.attention_loss(self.network, picture, target, embedding, view, self.learning_timestep)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _attention(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "c y x"]:
        """Return one picture's attention to every name's prompts; 0 for a name without prompts."""
        assert self.prompts is not None
        size = picture.shape[-2], picture.shape[-1]
        known = [name for name in self.names if name in self.prompts.embeddings]
        embeddings = torch.cat([self.prompts.embeddings[name] for name in known]).to(self.device)
        views = learning.frame_views(
            size, self._latents(size), count=self.crops, portion=self.portion, seed=self.seed + READING_SEED
        )
        at_once = self.prompts_per_pass or (1 if self.device.type == "cpu" else len(embeddings))
        maps = learning.read_attention(
            self.network, picture, embeddings, views, timestep=self.timestep, prompts_per_pass=at_once
        )
        counts = [len(self.prompts.embeddings[name]) for name in known]
        own = [learning.one_map(part.mean(0)) for part in torch.split(maps, counts)]
        cells = dict(zip(known, learning.pooled(torch.stack(own), self.stride), strict=True))
        empty = torch.zeros_like(cells[known[0]])
        return torch.stack([cells.get(name, empty) for name in self.names])

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
        settings = {option: getattr(self, option) for option in _SAVED_SETTINGS}
        return LearnedPrompts(embeddings, self._fingerprint, {**settings, "layers": self._layers}, losses)

    def _learn_one(
        self, picture: Float[Tensor, "1 3 h w"], target: Target, name: str, restart: int, on_step: OnStep | None
    ) -> learning.Learned:
        # the name, not its number: a joint's prompt must not depend on the others
        digest = hashlib.sha256(f"{self.seed} {restart} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        start = torch.randn((1, TOKENS, self.network.width), generator=generator)
        size = picture.shape[-2], picture.shape[-1]
        latents = self._latents(size)
        learned = learning.learn_embedding(
            self.network,
            picture,
            target,
            start,
            learning.random_views(size, latents, target, portion=self.portion, steps=self.steps, generator=generator),
            timestep=self.learning_timestep,
            learning_rate=self.learning_rate,
            patience=self.patience,
            on_step=None if on_step is None else lambda loss: on_step(name, loss, 1),
        )
        if on_step is not None and len(learned.losses) < self.steps:
            on_step(name, learned.losses[-1], self.steps - len(learned.losses))
        return learned

    def _latents(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return self.network.channels, size[0] // self.network.factor, size[1] // self.network.factor
