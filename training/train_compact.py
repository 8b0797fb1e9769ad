"""Train the compact diffusion model: `python -m training.train_compact --photos DIR --run DIR --stage STAGE`.

Stages:

- `denoise` trains a plain diffusion model on small crops.
- `match` continues from its last weights, on scenes of three views (`training.scenes`), noised to the timestep used for
  features. Losses: matching on the tapped block at stride 8 and at stride 4, label transfer, and denoising at random
  timesteps on some of the views, so that the model remains a diffusion model.
- `refine` is `match` with three times the weight on label transfer.

All stages are deterministic for a seed (batch n is a function of seed and n) and keep an exponential moving average of
the weights. Every `--save-every` steps they write `RUN/checkpoint.safetensors` and `RUN/state.pt`; a stopped run
resumes from these. `RUN/loss.csv` holds the loss curve. Export the average with `python -m training.export_compact`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from propagate.features.compact.compact import TRAINING_TIMESTEP, UNET_CONFIG
from propagate.features.diffusion.core import run_until
from training.crops import CropBatches
from training.cutouts import read_cutouts
from training.loop import add_options, best_device, train
from training.losses import matching_loss, scene_losses, velocity_target
from training.noising import noise_like, noised, rearranged
from training.photos import load_photos
from training.scenes import PAIRS, SceneBatches, SceneSettings

CHANNELS: Sequence[int] = UNET_CONFIG["block_out_channels"]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one stage."""

    steps: int
    batch: int
    size: int
    learning_rate: float
    ema: float
    warmup: int = 200
    denoising_weight: float = 1.0
    matching_weight: float = 0.0
    fine_weight: float = 0.0
    transfer_weight: float = 0.0
    coarse_cells: int = 200  # cells matched per view, drawn again in each step; all cells take a fifth more time
    fine_cells: int = 128
    denoised_views: int | None = None  # None: the whole batch
    block: int = 2

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: a linear warm-up, then a cosine decay to a fiftieth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


_MATCH = Recipe(
    steps=3000,
    batch=8,
    size=160,
    learning_rate=5e-4,
    ema=0.998,
    denoising_weight=0.5,
    matching_weight=0.5,
    fine_weight=0.25,
    transfer_weight=1.0,
    denoised_views=4,
)
RECIPES = {
    "denoise": Recipe(steps=800, batch=64, size=64, learning_rate=6e-4, ema=0.999),
    "match": _MATCH,
    "refine": replace(_MATCH, steps=1300, learning_rate=3e-4, transfer_weight=3.0),
}


class Trainer:
    """One stage: model, average, optimizer and the number of finished steps."""

    def __init__(self, recipe: Recipe, device: torch.device, seed: int, channels: Sequence[int] = CHANNELS) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device, self.seed = recipe, device, seed
        config = {**UNET_CONFIG, "block_out_channels": tuple(channels)}
        self.model = UNet2DModel(**config).to(device, memory_format=torch.channels_last)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
        schedule = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
        self.alphas_cumprod = schedule.alphas_cumprod.to(device)
        self.step = 0

    def start_from(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def train_step(self, batch: Any) -> dict[str, float]:
        """Run one optimizer step on one batch and return the losses by name."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        if recipe.matching_weight:
            scenes = {name: part.to(self.device) for name, part in batch.items()}
            clean = rearranged(scenes["views"])
            chosen = torch.randperm(len(clean), generator=generator)[: recipe.denoised_views]
            losses = {"denoise": self._denoising(clean[chosen.to(self.device)], generator)}
            losses |= self._matching(clean, scenes, generator)
            total = (
                recipe.denoising_weight * losses["denoise"]
                + recipe.matching_weight * losses["match"]
                + recipe.fine_weight * losses["fine"]
                + recipe.transfer_weight * losses["transfer"]
            )
        else:
            total = self._denoising(rearranged(batch.to(self.device)), generator)
            losses = {"denoise": total}
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._average()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _denoising(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        timesteps = torch.randint(0, 1000, (len(clean),), generator=generator).to(self.device)
        noise = noise_like(clean, generator)
        noisy = noised(clean, noise, self.alphas_cumprod[timesteps])
        with torch.autocast(self.device.type, torch.bfloat16):
            predicted = self.model(noisy, timesteps).sample
        return F.mse_loss(predicted.float(), velocity_target(clean, noise, timesteps, self.alphas_cumprod))

    def _matching(self, clean: Tensor, scenes: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        timesteps = torch.full((len(clean),), TRAINING_TIMESTEP, device=self.device)
        noisy = noised(clean, noise_like(clean, generator), self.alphas_cumprod[timesteps])
        with torch.autocast(self.device.type, torch.bfloat16):
            block = self.model.up_blocks[self.recipe.block]
            output = run_until(block, lambda: self.model(noisy, timesteps)).float()
        views, fine = F.avg_pool2d(output, 2).chunk(3), output.chunk(3)
        coarse, sharp_cells = (
            torch.randperm(part[0][0, 0].numel(), generator=generator)[:most].to(self.device)
            for part, most in ((views, self.recipe.coarse_cells), (fine, self.recipe.fine_cells))
        )
        sharp = [
            matching_loss(
                fine[a],
                fine[b],
                scenes["partner_4"][pair],
                scenes["visible_4"][pair],
                chosen=sharp_cells,
                other_pictures=0,
            )
            for pair, (a, b) in enumerate(PAIRS)
        ]
        losses = scene_losses(views, scenes, chosen=coarse)
        return {"match": losses["match"], "fine": torch.stack(sharp).mean(), "transfer": losses["transfer"]}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def save(self, run: Path) -> None:
        """Write weights and average without pickle, and the optimizer state in a file that only a resumed run reads."""
        names = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        names |= {f"ema.{name}": value for name, value in self.average.items()}
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in names.items()}
        save_file(tensors, run / "checkpoint.tmp", metadata={"step": str(self.step)})
        (run / "checkpoint.tmp").replace(run / "checkpoint.safetensors")
        torch.save({"optimizer": self.optimizer.state_dict(), "step": self.step}, run / "state.tmp")
        (run / "state.tmp").replace(run / "state.pt")

    def resume(self, run: Path) -> None:
        self.model.load_state_dict(read_weights(run, "model"))
        self.average = {name: value.to(self.device) for name, value in read_weights(run, "ema").items()}
        state = torch.load(run / "state.pt", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def read_weights(run: Path, kind: str) -> dict[str, Tensor]:
    """Return the `model` or the `ema` weights of a run's last checkpoint."""
    tensors = load_file(run / "checkpoint.safetensors")
    return {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def batches(recipe: Recipe, photos_folder: Path, cutouts: list[Path], seed: int, start: int) -> Iterator[Any]:
    photos = load_photos(photos_folder)
    if recipe.matching_weight > 0:
        pieces = [read_cutouts(folder) for folder in cutouts]
        settings = SceneSettings(size=recipe.size)
        data: Any = SceneBatches(photos, pieces, settings, batch=recipe.batch, seed=seed, start=start)
    else:
        data = CropBatches(photos, batch=recipe.batch, size=recipe.size, seed=seed, start=start)
    # One worker: batch n must not depend on the number of workers.
    return iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--stage", choices=sorted(RECIPES), required=True, help="recipe to run")
    parser.add_argument("--start-from", type=Path, help="start from the last weights of this run")
    parser.add_argument("--channels", type=int, nargs=4, default=CHANNELS, help="channels of the four levels")
    options = parser.parse_args()

    recipe = RECIPES[options.stage]
    if options.steps:
        recipe = Recipe(**{**asdict(recipe), "steps": options.steps})
    trainer = Trainer(recipe, best_device(), options.seed, options.channels)
    options.run.mkdir(parents=True, exist_ok=True)
    if (options.run / "state.pt").exists():
        trainer.resume(options.run)
    elif options.start_from:
        trainer.start_from(read_weights(options.start_from, "model"))
    train(
        trainer,
        batches(recipe, options.photos, options.cutouts, options.seed, trainer.step),
        options.run,
        until=min(recipe.steps, options.stop_at or recipe.steps),
        save_every=options.save_every,
    )


if __name__ == "__main__":
    main()
