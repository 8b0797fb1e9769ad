"""Train a head for the compact model: `python -m training.train_head --photos DIR --cutouts DIR --model DIR --run DIR`.

The model (`--model`: a folder with `config.json` and `model.safetensors`) stays frozen. The head is the aggregation
network of Diffusion Hyperfeatures over several layers of its decoder. It is trained on the scenes of `training.scenes`.
Their motion is synthetic, so corresponding cells are known without labels. The losses and their weights are those of
stage `match` of `training.train_compact`, on the grid of stride 8.

Training is deterministic for a seed. Every `--save-every` steps it writes `RUN/checkpoint.safetensors` and
`RUN/state.pt`, from which a stopped run resumes, and `RUN/head.safetensors` for `features.head`. `RUN/loss.csv` holds
the loss curve.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from propagate.features.compact.compact import SPACE_TO_DEPTH, TRAINING_TIMESTEP, load_unet
from propagate.features.compact.head import FILE, STRIDE, CompactHead, HeadConfig, save_head
from propagate.features.compact.network import CompactNetwork
from propagate.features.device import resolve_dtype
from propagate.features.diffusion.core import linear_alphas_cumprod
from training.loop import add_options, best_device, train
from training.losses import scene_losses
from training.noising import noise_like, noised, rearranged
from training.train_compact import RECIPES, Recipe, batches

RECIPE = replace(RECIPES["match"], steps=600, learning_rate=1e-3, warmup=50)
LAYERS = (
    *(f"up_blocks.{block}.resnets.{place}" for block in range(3) for place in range(2)),
    "up_blocks.2",
)


class HeadTrainer:
    """A head, its optimizer and the number of finished steps.

    Args:
        unet: the model; it stays frozen.
        recipe: weights of the losses, sizes and learning rate.
        device: device of the model and the head.
        seed: seed of the initial weights, the noise and the choice of cells.
        layers: names of the input layers, as in `CompactNetwork.layers`.
        timesteps: timesteps of the inputs.
        projection: number of output channels.
        norm_groups: number of groups of the group norms.

    Raises:
        KeyError: the decoder does not have one of the layers.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        recipe: Recipe,
        device: torch.device,
        seed: int,
        *,
        layers: Sequence[str] = LAYERS,
        timesteps: Sequence[int] = (TRAINING_TIMESTEP,),
        projection: int = 128,
        norm_groups: int = 16,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device, self.seed, self.step = recipe, device, seed, 0
        self._block = max(int(name.split(".")[1]) for name in layers)
        self._dtype = resolve_dtype("auto", device)
        self.networks = [CompactNetwork(unet, timestep, self._block) for timestep in timesteps]
        for network in self.networks:
            network.to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._kept = linear_alphas_cumprod()[list(timesteps)].to(device)
        channels = self.networks[0].layers
        config = HeadConfig(
            layers={name: channels[name] for name in layers},
            timesteps=tuple(timesteps),
            projection=projection,
            norm_groups=norm_groups,
        )
        self.head = CompactHead(config).to(device)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=recipe.learning_rate, weight_decay=0.01)

    def train_step(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """Run one optimizer step on one batch of scenes and return the losses by name."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        scenes = {name: part.to(self.device) for name, part in batch.items()}
        views = self._features(rearranged(scenes["views"]), generator).chunk(3)
        cells = torch.randperm(views[0][0, 0].numel(), generator=generator)[: self.recipe.coarse_cells]
        losses = scene_losses(views, scenes, chosen=cells.to(self.device))
        total = self.recipe.matching_weight * losses["match"] + self.recipe.transfer_weight * losses["transfer"]
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _features(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        grid = (clean.shape[-2] * SPACE_TO_DEPTH // STRIDE, clean.shape[-1] * SPACE_TO_DEPTH // STRIDE)
        noise = noise_like(clean, generator)
        shares = []
        for step, network in enumerate(self.networks):
            noisy = noised(clean, noise, self._kept[step].expand(len(clean))).to(self._dtype)
            with torch.no_grad():
                outputs = network(noisy, tuple(self.head.config.layers), averaged=self._block >= 2)
            with torch.autocast(self.device.type, torch.bfloat16):
                shares.append(self.head.share(step, outputs, grid).float())
        return torch.stack(shares).sum(0)

    def save(self, run: Path) -> None:
        """Write the head for use, its weights in full precision, and the optimizer state for a resumed run."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        save_file(tensors, run / "checkpoint.tmp", metadata={"step": str(self.step)})
        (run / "checkpoint.tmp").replace(run / "checkpoint.safetensors")
        torch.save({"optimizer": self.optimizer.state_dict(), "step": self.step}, run / "state.tmp")
        (run / "state.tmp").replace(run / "state.pt")
        save_head(self.head, run / FILE)

    def resume(self, run: Path) -> None:
        self.head.load_state_dict(load_file(run / "checkpoint.safetensors"))
        state: dict[str, Any] = torch.load(run / "state.pt", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder with the weights of the compact model")
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="input layers of the head")
    parser.add_argument("--timesteps", type=int, nargs="+", default=(TRAINING_TIMESTEP,), help="timesteps of inputs")
    parser.add_argument("--projection", type=int, default=128, help="number of output channels")
    options = parser.parse_args()

    recipe = replace(RECIPE, steps=options.steps or RECIPE.steps)
    trainer = HeadTrainer(
        load_unet(options.model),
        recipe,
        best_device(),
        options.seed,
        layers=options.layers,
        timesteps=options.timesteps,
        projection=options.projection,
    )
    options.run.mkdir(parents=True, exist_ok=True)
    if (options.run / "state.pt").exists():
        trainer.resume(options.run)
    train(
        trainer,
        batches(recipe, options.photos, options.cutouts, options.seed, trainer.step),
        options.run,
        until=min(recipe.steps, options.stop_at or recipe.steps),
        save_every=options.save_every,
    )


if __name__ == "__main__":
    main()
